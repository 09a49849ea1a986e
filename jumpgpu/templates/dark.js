function setDark(on) {
  document.documentElement.classList.toggle("dark", on);
  document.getElementById("dark").textContent = on ? "Light" : "Dark";
  document.getElementById("dark").setAttribute("aria-pressed", String(on));
}
let wish = null;
try { wish = localStorage.getItem("jumpgpu-dark"); } catch (error) { /* a file opened from disk may have none */ }
setDark(wish === null ? matchMedia("(prefers-color-scheme: dark)").matches : wish === "1");
document.getElementById("dark").addEventListener("click", () => {
  const on = !document.documentElement.classList.contains("dark");
  setDark(on);
  try { localStorage.setItem("jumpgpu-dark", on ? "1" : "0"); } catch (error) { /* it lasts for this page */ }
});
