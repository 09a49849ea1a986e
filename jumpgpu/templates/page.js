const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const letters = r => r <= 26 ? String.fromCharCode(64 + r) : "A" + String.fromCharCode(38 + r);
const bytes = Uint8Array.from(atob(data.features.steps), c => c.charCodeAt(0));
const steps = new Uint16Array(bytes.buffer);
const names = data.features.names;
const profiles = names.length ? steps.length / names.length : 0;
const placeOf = new Map(names.map((n, i) => [n, i]));
const measures = ["cells", "flagged images", ...data.images.names, ...names];
data.wells.forEach((w, i) => { w.index = i; });
const wellsAt = new Map(data.wells.map(w => [w.row * 100 + w.column, w]));
const wellNamed = new Map(data.wells.map(w => [w.well, w]));
const viridis = [[68,1,84],[72,40,120],[62,74,137],[49,104,142],[38,130,142],[31,158,137],[53,183,121],[109,205,89],[180,222,44],[253,231,37]];
const diverging = [[33,102,172],[103,169,207],[209,229,240],[247,247,247],[253,219,199],[239,138,98],[178,24,43]];
const number = v => v === null || !isFinite(v) ? "none" : Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(2) : String(+v.toPrecision(4));
const escape = text => String(text).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
let chosen = null, feature = "cells", site = null, group = new Set();

function rgb(t, stops) {
  const x = Math.max(0, Math.min(1, t)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(x)), f = x - i;
  return stops[i].map((a, k) => Math.round(a + (stops[i + 1][k] - a) * f));
}
const inZ = () => byId("mode").value === "z" && placeOf.has(feature);
const stopsNow = () => inZ() ? diverging : viridis;
const colour = (t, stops = stopsNow()) => `rgb(${rgb(t, stops).join()})`;
function rawValue(well, name) {
  if (name === "cells") return well.cells;
  if (name === "flagged images") return well.flags;
  const m = data.images.names.indexOf(name);
  if (m >= 0) return data.images.values[m][well.index] ?? NaN;
  const f = placeOf.get(name);
  if (f === undefined || well.profile < 0) return NaN;
  const step = steps[f * profiles + well.profile];
  if (step === 65535) return NaN;
  return data.features.least[f] + (data.features.most[f] - data.features.least[f]) * step / 65534;
}
function valueOf(well, name) {
  const value = rawValue(well, name), f = placeOf.get(name);
  if (byId("mode").value !== "z" || f === undefined) return value;
  return data.reference.mad[f] > 0 ? (value - data.reference.median[f]) / data.reference.mad[f] : NaN;
}
function limits(values) {
  const sorted = values.filter(isFinite).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const cut = Number(byId("range").value) / 100;
  const at = q => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(q * (sorted.length - 1))))];
  let low = at(cut), high = at(1 - cut);
  if (!(low < high)) [low, high] = [sorted[0], sorted[sorted.length - 1]];
  if (inZ()) { const most = Math.max(3, Math.abs(low), Math.abs(high)); return [-most, most]; }
  return [low, high];
}
function unitOf(name) {
  if (inZ()) return "z";
  if (name === "cells") return "cells per well";
  if (name === "flagged images") return "images";
  const f = placeOf.get(name);
  return f === undefined ? "" : data.features.unit.words[data.features.unit.of[f]];
}
const titled = name => [name, unitOf(name) && `(${unitOf(name)})`].filter(Boolean).join(" ");
function ticks(low, high, n = 5) {
  const span = high - low || 1, raw = span / n, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(s => s * power >= raw) * power;
  const result = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) result.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return result.map(v => +v.toPrecision(6));
}

function buildPlate() {
  const plate = byId("plate");
  plate.style.setProperty("--columns", data.columns);
  const cells = ['<span class="head"></span>'];
  for (let c = 1; c <= data.columns; c++) cells.push(`<span class="head">${c}</span>`);
  for (let r = 1; r <= data.rows; r++) {
    cells.push(`<span class="head">${letters(r)}</span>`);
    for (let c = 1; c <= data.columns; c++) {
      const well = wellsAt.get(r * 100 + c);
      cells.push(well
        ? `<button type="button" role="gridcell" tabindex="-1" data-row="${r}" data-column="${c}" class="${well.control === "negcon" ? "negcon" : ""} ${well.flags ? "flagged" : ""}"></button>`
        : '<button type="button" class="absent" tabindex="-1" disabled aria-label="no well"></button>');
    }
  }
  plate.innerHTML = cells.join("");
  data.wells.forEach(w => { w.button = plate.querySelector(`button[data-row="${w.row}"][data-column="${w.column}"]`); });
  const first = plate.querySelector("button[data-row]");
  if (first) first.tabIndex = 0;
  plate.addEventListener("click", event => { const b = event.target.closest("button[data-row]"); if (b) choose(wellsAt.get(+b.dataset.row * 100 + +b.dataset.column)); });
  plate.addEventListener("keydown", event => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const from = event.target.closest("button[data-row]");
    if (!move || !from) return;
    event.preventDefault();
    let r = +from.dataset.row, c = +from.dataset.column;
    for (;;) {
      r += move[0]; c += move[1];
      if (r < 1 || c < 1 || r > data.rows || c > data.columns) return;
      const to = plate.querySelector(`button[data-row="${r}"][data-column="${c}"]`);
      if (to) { from.tabIndex = -1; to.tabIndex = 0; to.focus(); return; }
    }
  });
}
const ruler = document.createElement("canvas").getContext("2d");
function fitting(text, width) {  // 9 px, or as small as 6 where its longest word would be cut in two
  ruler.font = "9px system-ui, sans-serif";
  const longest = Math.max(...text.split(/[\s-]+/).map(w => ruler.measureText(w).width));
  return Math.max(6, Math.min(9, 9 * width / longest));
}
function paint() {
  const values = data.wells.map(w => valueOf(w, feature)), [low, high] = limits(values), asked = byId("words").value;
  const side = byId("plate").clientWidth / (data.columns + 1), words = side < 34 ? "none" : asked;
  byId("narrow").hidden = asked === "none" || words !== "none";
  data.wells.forEach((well, i) => {
    const t = (values[i] - low) / (high - low || 1), known = isFinite(values[i]);
    well.button.style.background = known ? colour(t) : "";
    const [r, g, b] = known ? rgb(t, stopsNow()) : [255, 255, 255];
    well.button.style.color = known ? (0.299 * r + 0.587 * g + 0.114 * b > 140 ? "#000" : "#fff") : "var(--ink)";
    const text = words === "treatment" ? well.treatment : words === "value" ? (known ? String(+values[i].toPrecision(3)) : "") : "";
    well.button.innerHTML = text ? `<span style="font-size:${fitting(text, side - 5).toFixed(1)}px">${escape(text)}</span>` : "";
    const label = `${well.well}: ${number(values[i])}${well.treatment ? ", " + well.treatment : ""}${well.flags ? ", flagged" : ""}`;
    well.button.title = label;
    well.button.setAttribute("aria-label", label);
    well.button.classList.toggle("group", group.has(well.well));
  });
  byId("unit").textContent = titled(feature);
  byId("low").textContent = number(low);
  byId("high").textContent = number(high);
  const bar = byId("bar").getContext("2d");
  for (let x = 0; x < 256; x++) { bar.fillStyle = colour(x / 255); bar.fillRect(x, 0, 1, 12); }
  distribution(values);
  edges(values);
  plane();
  if (chosen) show();
}
function choose(well, which = null, move = false) {
  byId("plate").querySelectorAll("[aria-selected=true]").forEach(b => b.removeAttribute("aria-selected"));
  byId("plate").querySelectorAll("button[tabindex='0']").forEach(b => { b.tabIndex = -1; });
  well.button.setAttribute("aria-selected", "true");
  well.button.tabIndex = 0;
  chosen = well;
  const pictures = data.pictures.wells[well.well] || [];
  site = pictures.find(p => p.site === which) || pictures[0] || null;
  show();
  plane();
  if (move) byId("well").scrollIntoView({ block: "nearest" });
}

const look = { shown: [...(data.pictures.shown || [])], bright: 1, outlines: true };
const loaded = new Map();
function picture(url) {
  if (!loaded.has(url)) {
    loaded.set(url, new Promise((resolve, reject) => { const i = new Image(); i.onload = () => resolve(i); i.onerror = reject; i.src = url; }));
    if (loaded.size > 60) loaded.delete(loaded.keys().next().value);
  }
  return loaded.get(url);
}
async function compose(canvas, p, large) {
  const [grey, lines] = await Promise.all([picture(p.grey), p.outlines ? picture(p.outlines) : null]);
  const n = data.pictures.channels.length, w = p.width, h = p.height;
  const raw = document.createElement("canvas");
  raw.width = w; raw.height = n * h;
  const pen = raw.getContext("2d", { willReadFrequently: true });
  pen.drawImage(grey, 0, 0);
  const from = pen.getImageData(0, 0, w, n * h).data, out = pen.createImageData(w, h), on = look.shown.map((s, c) => s ? c : -1).filter(c => c >= 0);
  const gain = data.pictures.headroom * look.bright / 255, lights = on.length === 1 ? [[1, 1, 1]] : on.map(c => data.pictures.colours[c]);
  for (let i = 0; i < w * h; i++) {
    let r = 0, g = 0, b = 0;
    on.forEach((c, k) => {
      const v = Math.min(1, from[4 * (c * w * h + i)] * gain);
      r += v * lights[k][0]; g += v * lights[k][1]; b += v * lights[k][2];
    });
    const top = Math.max(1, r, g, b) / 255;
    out.data[4 * i] = r / top; out.data[4 * i + 1] = g / top; out.data[4 * i + 2] = b / top; out.data[4 * i + 3] = 255;
  }
  raw.height = h;
  pen.putImageData(out, 0, 0);
  const scale = Math.max(1, Math.round((large ? 1080 : 540) / Math.max(w, h)));
  canvas.width = scale * w; canvas.height = scale * h;
  const to = canvas.getContext("2d");
  to.imageSmoothingQuality = "high";
  to.drawImage(raw, 0, 0, canvas.width, canvas.height);
  if (lines && look.outlines) { to.imageSmoothingEnabled = false; to.drawImage(lines, 0, 0, canvas.width, canvas.height); }
  const per = data.pictures.pixel_um || 1, most = 0.2 * w * p.step * per, power = 10 ** Math.floor(Math.log10(most));
  const length = [5, 2, 1].find(s => s * power <= most) * power, pixels = length / per / p.step * scale;
  const right = canvas.width * .97, y = canvas.height * .955, size = Math.max(11, Math.round(canvas.width / 36));
  to.fillStyle = "#fff"; to.strokeStyle = "#000"; to.lineWidth = 3;
  to.fillRect(right - pixels, y, pixels, Math.max(3, canvas.height / 120));
  to.font = `${size}px system-ui, sans-serif`; to.textAlign = "center";
  const said = `${length} ${data.pictures.pixel_um ? "µm" : "pixels"}`;
  to.strokeText(said, right - pixels / 2, y - 5); to.fillText(said, right - pixels / 2, y - 5);
}
function redraw() {
  if (site && byId("site-canvas")) compose(byId("site-canvas"), site, false);
  if (site && byId("large").open) compose(byId("large-canvas"), site, true);
}
function show() {
  const well = chosen, images = data.pictures.wells[well.well] || [];
  const value = feature === "cells" ? "" : `<br>${escape(titled(feature))}: ${number(valueOf(well, feature))}`;
  const hex = c => "rgb(" + c.map(v => Math.round(255 * Math.min(1, v / Math.max(...c)))).join() + ")";
  byId("well").innerHTML = `<h3>${well.well}${well.treatment ? ": " + escape(well.treatment) : ""}</h3>
    <p class="note">${well.cells} cells in ${well.sites.length} site${well.sites.length === 1 ? "" : "s"}${well.control ? ", " + escape(well.control) : ""}${well.flags ? `, ${well.flags} flagged image${well.flags === 1 ? "" : "s"}` : ""}${value}</p>` +
    (images.length ? `<div class="row" id="sites">${images.map(p => `<button type="button" class="plain" data-site="${p.site}" aria-pressed="${p === site}">site ${p.site}</button>`).join("")}${images.length < well.sites.length ? `<span>of ${well.sites.length}; --pictures all shows them all</span>` : ""}</div>
      <div class="picture"><button type="button" id="enlarge" aria-label="enlarge ${well.well} site ${site.site}"><canvas id="site-canvas" role="img" aria-label="${well.well} site ${site.site}, channels as colours with outlines of nuclei and cells"></canvas></button></div>
      <div class="row" id="channels">${data.pictures.channels.map((c, i) => `<label><input type="checkbox" data-channel="${i}" ${look.shown[i] ? "checked" : ""}><i class="swatch" style="background:${hex(data.pictures.colours[i])}"></i>${escape(c)}</label>`).join("")}
      ${site.outlines ? `<label><input type="checkbox" id="outlines" ${look.outlines ? "checked" : ""}>outlines (nuclei blue, cells white)</label>` : ""}
      <label>brightness<input type="range" id="bright" min="-2" max="2" step="0.1" value="${Math.log2(look.bright)}"></label></div>
      <p class="note">One channel alone is shown in grey. Brightness is the same for all wells of the plate. Choose the picture to enlarge it.</p>`
      : '<p class="note">No picture is stored. jumpgpu extract --save-overview stores pictures, --save-labels the outlines too.</p>');
  byId("against").innerHTML = topFeatures(well);
  redraw();
}
function topFeatures(well) {
  const list = well.profile < 0 ? [] : data.top[well.profile];
  if (!list || !list.length) return `<h3>${well.well} against the controls</h3><p class="note">No feature of this well can be compared.</p>`;
  const most = Math.max(...list.map(([, z]) => Math.abs(z)));
  return `<h3>${well.well} against the controls</h3><p class="note">The features furthest from ${escape(data.reference.words)}, in z: the strongest of each compartment, family and channel. Choose one to colour the plate.</p><div class="bars">` +
    list.map(([f, z]) => `<button type="button" data-feature="${escape(names[f])}">${escape(names[f])}</button><span><i style="background:${z < 0 ? "#2166ac" : "#b2182b"};${z < 0 ? "right" : "left"}:50%;width:${(40 * Math.abs(z) / most).toFixed(1)}%"></i><em style="${z < 0 ? "left:52%" : "right:52%"}">${number(+z.toPrecision(3))}</em></span>`).join("") + "</div>";
}
byId("well").addEventListener("click", event => {
  const to = event.target.closest("[data-site]");
  if (to) { site = data.pictures.wells[chosen.well].find(p => p.site === +to.dataset.site); show(); byId("sites").querySelector(`[data-site="${site.site}"]`).focus(); }
  else if (event.target.closest("#enlarge")) { byId("large-title").textContent = `${chosen.well} site ${site.site}${chosen.treatment ? ": " + chosen.treatment : ""}`; byId("large").showModal(); redraw(); }
});
byId("against").addEventListener("click", event => {
  const named = event.target.closest("[data-feature]");
  if (named) { byId("mode").value = "z"; pick(named.dataset.feature); byId("plate-title").scrollIntoView({ block: "start" }); }
});
byId("well").addEventListener("input", event => {
  if (event.target.dataset.channel !== undefined) look.shown[+event.target.dataset.channel] = event.target.checked;
  else if (event.target.id === "outlines") look.outlines = event.target.checked;
  else if (event.target.id === "bright") look.bright = 2 ** +event.target.value;
  redraw();
});
byId("large").addEventListener("click", event => { if (event.target === byId("large") || event.target === byId("large-canvas")) byId("large").close(); });

function svg(width, height, body, label) { return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escape(label)}">${body}</svg>`; }
function histogram(values, low, high, bins) {
  const counts = new Array(bins).fill(0);
  values.forEach(v => { counts[Math.max(0, Math.min(bins - 1, Math.floor((v - low) / (high - low || 1) * bins)))]++; });
  return counts.map(c => c / Math.max(1, values.length));
}
function steppedArea(shares, top, colourName, opacity) {
  const w = 600 / shares.length;
  return shares.map((s, i) => `<rect x="${(60 + i * w).toFixed(1)}" y="${(180 - 160 * s / top).toFixed(1)}" width="${(w - 1).toFixed(1)}" height="${(160 * s / top).toFixed(1)}" fill="${colourName}" opacity="${opacity}"/>`).join("");
}
function axes(low, high, top, words, of) {
  const x = v => 60 + 600 * (v - low) / (high - low || 1);
  return `<line x1="60" x2="660" y1="180" y2="180" class="axis"/><line x1="60" x2="60" y1="20" y2="180" class="axis"/>` +
    ticks(low, high).map(v => `<line x1="${x(v)}" x2="${x(v)}" y1="180" y2="184" class="axis"/><text x="${x(v)}" y="200" text-anchor="middle">${number(v)}</text>`).join("") +
    [0, top / 2, top].map(s => `<text x="54" y="${184 - 160 * s / top}" text-anchor="end">${Math.round(100 * s)} %</text>`).join("") +
    `<text x="360" y="222" text-anchor="middle">${escape(words)}</text><text transform="translate(12 100) rotate(-90)" text-anchor="middle">${of}</text>`;
}
function distribution(values) {
  const kinds = { negcon: [], treated: [] };
  data.wells.forEach((w, i) => { if (isFinite(values[i])) (w.control === "negcon" ? kinds.negcon : kinds.treated).push(values[i]); });
  const all = [...kinds.negcon, ...kinds.treated];
  if (!all.length) { byId("distribution").innerHTML = '<figcaption>No well has this feature.</figcaption>'; return; }
  const low = Math.min(...all), high = Math.max(...all), bins = Math.max(8, Math.min(40, Math.round(2 * Math.sqrt(all.length))));
  const a = histogram(kinds.negcon, low, high, bins), b = histogram(kinds.treated, low, high, bins), top = Math.max(...a, ...b, 1e-9);
  byId("distribution").innerHTML = svg(680, 228, steppedArea(b, top, "var(--treated)", .75) + (kinds.negcon.length ? steppedArea(a, top, "var(--control)", .5) : "") + axes(low, high, top, titled(feature), "share of wells"),
    `Distribution of ${feature}`) + `<figcaption>${kinds.treated.length} other wells (green)${kinds.negcon.length ? `, ${kinds.negcon.length} negative controls (red)` : "; no plate map was given (--metadata), so no negative control is known"}. Heights are shares of each group.</figcaption>`;
}
function edges(values) {
  const groups = { rows: new Map(), columns: new Map(), rings: new Map() };
  data.wells.forEach((w, i) => {
    if (!isFinite(values[i])) return;
    const ring = Math.min(w.row - 1, w.column - 1, data.rows - w.row, data.columns - w.column);
    for (const [kind, key] of [["rows", w.row], ["columns", w.column], ["rings", ring]]) {
      if (!groups[kind].has(key)) groups[kind].set(key, []);
      groups[kind].get(key).push(values[i]);
    }
  });
  const titles = { rows: "row", columns: "column", rings: "wells from the edge" };
  const means = {};
  for (const kind in groups) means[kind] = [...groups[kind].keys()].sort((a, b) => a - b).map(k => [k, groups[kind].get(k).reduce((a, b) => a + b, 0) / groups[kind].get(k).length]);
  const every = Object.values(means).flat().map(([, m]) => m), low = Math.min(...every), high = Math.max(...every);
  for (const kind in groups) {
    const list = means[kind], w = 280 / Math.max(1, list.length);
    const name = k => kind === "rows" ? letters(k) : k;
    const x = i => 60 + (i + .5) * w, y = m => 116 - 96 * (m - low) / (high - low || 1);
    byId(kind).innerHTML = list.length ? svg(360, 160, `<line x1="60" x2="340" y1="124" y2="124" class="axis"/><line x1="60" x2="60" y1="14" y2="124" class="axis"/>` +
      [low, high].map(v => `<text x="55" y="${y(v) + 4}" text-anchor="end">${number(v)}</text>`).join("") +
      `<polyline points="${list.map(([, m], i) => `${x(i)},${y(m)}`).join(" ")}" fill="none" stroke="#9aa3c9"/>` + list.map(([k, m], i) =>
      `<circle cx="${x(i)}" cy="${y(m)}" r="4" fill="var(--treated)"><title>${name(k)}: ${number(m)}</title></circle>` +
        (list.length <= 16 || i % 4 === 0 ? `<text x="${x(i)}" y="140" text-anchor="middle">${name(k)}</text>` : "")
    ).join("") + `<text x="200" y="156" text-anchor="middle">${titles[kind]}</text>`, `${feature} by ${titles[kind]}`) + `<figcaption>${escape(titled(feature))} by ${titles[kind]}; the three share one scale</figcaption>` : "";
  }
}
const NAMED = 30;  // wells up to which all are named in the map
function plane() {
  const { points, axes: said, note } = data.plane;
  if (!points.length) { byId("plane").innerHTML = `<figcaption>${escape(note)}</figcaption>`; return; }
  const xs = points.map(p => p[0]), ys = points.map(p => p[1]), span = (a, v, from, to) => from + (to - from) * (v - Math.min(...a)) / (Math.max(...a) - Math.min(...a) || 1);
  const values = data.wells.map(w => valueOf(w, feature)), [low, high] = limits(values);
  const dots = data.wells.filter(w => w.profile >= 0).sort((a, b) => (group.has(a.well) || a === chosen) - (group.has(b.well) || b === chosen)).map(w => {
    const [px, py] = points[w.profile], x = span(xs, px, 52, 540), y = span(ys, py, 316, 16), v = values[w.index], mark = w === chosen || group.has(w.well);
    const fill = isFinite(v) ? colour((v - low) / (high - low || 1)) : "none", label = `<title>${w.well}: ${number(v)}${w.treatment ? ", " + escape(w.treatment) : ""}</title>`;
    const ring = `stroke="${mark ? "var(--ink)" : "var(--edge)"}" stroke-width="${mark ? 3 : 1}"`;
    return (w.control === "negcon" ? `<circle class="point" data-well="${w.well}" cx="${x}" cy="${y}" r="6" fill="${fill}" ${ring}>${label}</circle>`
      : `<rect class="point" data-well="${w.well}" x="${x - 5}" y="${y - 5}" width="10" height="10" fill="${fill}" ${ring}>${label}</rect>`) +
      (mark ? `<text x="${x > 400 ? x - 10 : x + 10}" y="${y + 4}" text-anchor="${x > 400 ? "end" : "start"}" style="fill: var(--ink)">${w.well}${group.size > 1 || !w.treatment ? "" : " " + escape(w.treatment.slice(0, 24))}</text>` : "");
  });
  const strongest = data.treatments.rows.slice(0, 5).map(t => t.wells.find(n => wellNamed.get(n)?.profile >= 0));
  const named = data.wells.filter(w => w.profile >= 0 && w.treatment && w !== chosen && !group.has(w.well) && (points.length <= NAMED || strongest.includes(w.well))).map(w => {
    const x = span(xs, points[w.profile][0], 52, 540), y = span(ys, points[w.profile][1], 316, 16);
    return `<text class="name" x="${x > 430 ? x - 8 : x + 8}" y="${y + 3}" text-anchor="${x > 430 ? "end" : "start"}">${escape(w.treatment.slice(0, 24))}</text>`;
  });
  byId("plane").innerHTML = svg(560, 350, `<line x1="40" x2="550" y1="328" y2="328" class="axis"/><line x1="40" x2="40" y1="6" y2="328" class="axis"/><text x="295" y="345" text-anchor="middle">${escape(said[0])}</text><text transform="translate(28 170) rotate(-90)" text-anchor="middle">${escape(said[1])}</text>${dots.join("")}${named.join("")}`,
    "map of the wells") + `<figcaption>${escape(note)} Round: negative controls; square: other wells${named.length && points.length > NAMED ? "; named: a well of each of the five strongest treatments" : ""}. Colours: ${escape(titled(feature))}, as on the plate. Choose a point to see its well.</figcaption>`;
}
byId("plane").addEventListener("click", event => { const p = event.target.closest("[data-well]"); if (p) choose(wellNamed.get(p.dataset.well), null, true); });
function treatments() {
  const { rows, threshold } = data.treatments;
  if (!rows.length) { byId("treatments").innerHTML = '<p class="note">No treatment is known. Give the plate map, which says what is in each well: jumpgpu report ... --metadata DIR.</p>'; return; }
  const cell = (v, digits = 0) => `<td class="number">${v === null ? "" : v.toFixed(digits)}</td>`;
  byId("treatments").innerHTML = `<p class="note">Effect: root mean square of z over all features, for the median of the treatment's wells; z beyond 20 counts as 20${threshold === null ? "" : `. Bold: more than ${threshold.toFixed(2)}, which 5 % of single negative controls exceed`}. Changed: share of features with z beyond 3. Correlation: median Pearson r between the treatment's wells on this plate. Choose a treatment to mark its wells.</p>
    <div class="scroll" style="max-height: 420px; overflow-y: auto"><table><thead><tr><th>treatment</th><th class="number">effect</th><th class="number">changed, %</th><th class="number">correlation</th><th class="number">cells, % of controls</th><th class="wells">wells</th></tr></thead><tbody>` +
    rows.map(t => `<tr class="${threshold !== null && t.effect > threshold ? "strong" : ""}"><td><button type="button" data-wells="${t.wells.join(" ")}">${escape(t.treatment)}</button></td>${cell(t.effect, 2)}${cell(t.changed)}${cell(t.correlation, 2)}${cell(t.cells)}<td class="wells">${t.wells.join(" ")}</td></tr>`).join("") + "</tbody></table></div>";
}
byId("treatments").addEventListener("click", event => {
  const b = event.target.closest("[data-wells]");
  if (!b) return;
  group = new Set(b.dataset.wells.split(" "));
  choose(wellNamed.get(b.dataset.wells.split(" ")[0]));
  paint();
  byId("plate-title").scrollIntoView({ block: "start" });
});
document.querySelector(".worst")?.addEventListener("click", event => {
  const b = event.target.closest("[data-well]");
  if (b) { choose(wellNamed.get(b.dataset.well), +b.dataset.site); byId("plate-title").scrollIntoView({ block: "start" }); }
});
const scoreNames = { replicating: "Percent Replicating", matching: "Percent Matching" };
function scores() {
  byId("scores").innerHTML = data.scores.length ? data.scores.map(s => {
    const top = Math.max(...s.values, ...s.null, 1e-9), low = s.edges[0], high = s.edges[s.edges.length - 1];
    const at = 60 + 600 * (s.null_95th - low) / (high - low || 1);
    return `<figure>${svg(680, 228, steppedArea(s.values, top, "var(--treated)", .75) + steppedArea(s.null, top, "var(--null)", .45) +
      `<line x1="${at}" x2="${at}" y1="14" y2="180" stroke="var(--ink)" stroke-dasharray="4 3"/>` + axes(low, high, top, "median correlation", "share"),
      `${s.name}: ${number(s.percent)} percent`)}<figcaption>${escape([scoreNames[s.name] || s.name, s.condition].filter(Boolean).join(", "))}: ${number(s.percent)} % above the null's 95th percentile (dashed). Replicates green, null grey.${s.notes.map(n => "<br>" + escape(n)).join("")}</figcaption></figure>`;
  }).join("") : '<p class="note">No score was given. Score two or more replicate plates with jumpgpu score, and add its .json with jumpgpu report ... --scores FILE.</p>';
}
function minis() {
  const groups = { "Sharpness": "sharpness ", "Saturated counts, percent": "saturated ", "Flagged cells, percent": "cells Flag" };
  byId("minis").innerHTML = Object.entries(groups).map(([title, start]) => {
    const shown = data.images.names.filter(n => n.startsWith(start));
    return shown.length ? `<h3>${title}</h3><div class="minis">` + shown.map(n => `<button type="button" data-name="${escape(n)}" aria-pressed="false"><canvas width="${data.columns}" height="${data.rows}" role="img"></canvas><span></span></button>`).join("") + "</div>" : "";
  }).join("") || '<p class="note">This plate was extracted by an older version that did not store these; extract it again to have them.</p>';
  byId("minis").querySelectorAll("button").forEach(button => {
    const name = button.dataset.name, pen = button.firstChild.getContext("2d");
    const values = data.wells.map(w => rawValue(w, name)), known = values.filter(isFinite), low = Math.min(...known), high = Math.max(...known);
    pen.fillStyle = "#e3e7ec";
    pen.fillRect(0, 0, data.columns, data.rows);
    data.wells.forEach((w, i) => { if (isFinite(values[i])) { pen.fillStyle = colour((values[i] - low) / (high - low || 1), viridis); pen.fillRect(w.column - 1, w.row - 1, 1, 1); } });
    const ends = !known.length ? "none" : low === high ? number(low) : `${+low.toPrecision(2)} to ${+high.toPrecision(2)}`;
    button.firstChild.setAttribute("aria-label", `${name} over the plate, ${ends}`);
    button.lastChild.textContent = `${name.split(" ").slice(1).join(" ").replace(/^Flag_/, "").replace(/_/g, " ").replace(", percent", "")}: ${ends}`;
    button.addEventListener("click", () => { pick(name); byId("plate-title").scrollIntoView({ block: "start" }); });
  });
}

function fillChoices() {
  const options = (id, words, all) => { byId(id).innerHTML = `<option value="">${all}</option>` + words.map(w => `<option>${escape(w)}</option>`).join(""); };
  const f = data.features;
  options("compartment", f.compartment.words.filter(Boolean), "all");
  options("family", f.family.words.filter(Boolean), "all");
  options("channel", [...new Set([...f.channel.words, ...f.channel_2.words])].filter(Boolean), "all");
  for (const id of ["compartment", "family", "channel"]) byId(id).addEventListener("change", listFeatures);
  byId("search").addEventListener("input", listFeatures);
  byId("feature").addEventListener("change", event => pick(event.target.value));
}
function listFeatures() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean), f = data.features;
  const [c, m, ch] = ["compartment", "family", "channel"].map(id => byId(id).value), filtered = c || m || ch;
  const fits = n => words.every(w => n.toLowerCase().includes(w));
  const list = measures.filter(n => {
    const i = placeOf.get(n);
    if (i === undefined) return !filtered && fits(n);
    return fits(n) && (!c || f.compartment.words[f.compartment.of[i]] === c) && (!m || f.family.words[f.family.of[i]] === m) &&
      (!ch || f.channel.words[f.channel.of[i]] === ch || f.channel_2.words[f.channel_2.of[i]] === ch);
  });
  byId("found").textContent = `Feature: ${list.length.toLocaleString("en")} of ${measures.length.toLocaleString("en")}`;
  const shown = list.includes(feature) ? list : [feature, ...list];
  byId("feature").innerHTML = shown.map(n => `<option${n === feature ? " selected" : ""}>${escape(n)}</option>`).join("");
}
function pick(name) {
  feature = name;
  listFeatures();
  byId("minis").querySelectorAll("button").forEach(b => b.setAttribute("aria-pressed", String(b.dataset.name === name)));
  paint();
}
addEventListener("resize", paint);
byId("range").addEventListener("change", paint);
byId("mode").addEventListener("change", paint);
byId("words").addEventListener("change", paint);
if (!data.wells.some(w => w.treatment)) byId("words").value = "none";
buildPlate();
fillChoices();
listFeatures();
minis();
scores();
treatments();
paint();
const beginning = data.wells.find(w => w.profile >= 0) || data.wells[0];
if (beginning) choose(beginning);
