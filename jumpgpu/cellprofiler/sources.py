"""Where a pipeline's images are: the Metadata module's regular expression and NamesAndTypes' rules, or LoadData's table.

They become `[plate] pattern` and `[plate.assign]`: what a file's path must have to be an image of the pipeline's.
"""

import re

from ..settings.names import LABEL_IMAGE
from .findings import Source, Unsupported
from .parse import Module, Pipeline, printable

GROUPS = {  # what metadata are called, without case and underscores
    **{"plate": "plate", "barcode": "plate", "well": "well", "wellid": "well", "site": "site", "field": "site"},
    **{"fieldid": "site", "fov": "site", "wellrow": "row", "row": "row", "wellcol": "column", "wellcolumn": "column"},
    **{"column": "column", "col": "column"},
}
PREDICATE = re.compile(r'(\w+) (does|doesnot) (\w+)(?: (?:(\w+) )?"((?:[^"\\]|\\.)*)")?')


def source_of(pipeline: Pipeline) -> Source:
    """ValueError where rules are not to be read."""
    modules = {m.name: m for m in pipeline.modules if m.enabled}
    if load := modules.get("LoadData"):
        return Source(table=next(iter(load.named("Name of the file")), ""))
    if not (names := modules.get("NamesAndTypes")):
        return Source()
    expression = file_expression(modules["Metadata"]) if "Metadata" in modules else ""
    try:
        assign = {name: "^" + rule_as_regex(text, expression) for name, text in rules_of(names).items()}
    except Unsupported as error:
        raise ValueError(f"{names}: {error}") from error
    return Source(renamed(expression) if expression and assign else None, assign)


def file_expression(module: Module) -> str:
    """The first regular expression of file names that tells a well; nothing where no metadata are extracted."""
    if module.named("Extract metadata?") != ["Yes"]:
        return ""
    ways = module.named("Metadata extraction method")
    sources = module.named("Metadata source")
    texts = module.named("Regular expression to extract from file name") or module.named("Regular expression")
    told = [
        t for w, s, t in zip(ways, sources, texts, strict=False) if w.startswith("Extract from file") and s == "File name"
    ]
    return next((t for t in told if {"well", "row"} & set(groups_of(t).values())), "")


def groups_of(expression: str) -> dict[str, str]:
    """Groups of an expression that are known here, by their name there."""
    there = re.findall(r"\(\?P<(\w+)>", expression)
    return {g: known for g in there if (known := GROUPS.get(g.lower().replace("_", "")))}


def renamed(expression: str) -> str:
    """An expression with groups as `[plate] pattern` has them; the others do not capture."""
    known = groups_of(expression)
    return re.sub(r"\(\?P<(\w+)>", lambda m: f"(?P<{known[m[1]]}>" if m[1] in known else "(?:", expression)


def rules_of(module: Module) -> dict[str, str]:
    """Image -> the rule that its files follow, of grey images."""
    values = module.settings
    result: dict[str, str] = {}
    for i, (text, value) in enumerate(values):
        if text == "Select the rule criteria" and i + 3 < len(values) and value != "No":
            rest = dict(values[i + 1 : i + 5])
            kind = rest.get("Select the image type", "Grayscale image")
            if kind in ("Grayscale image", "Color image", "Binary mask"):
                result[values[i + 1][1]] = value
            elif kind == "Objects":
                result[values[i + 2][1] + LABEL_IMAGE] = value
    return result if module.named("Assign a name to") == ["Images matching rules"] else {}


def rule_as_regex(text: str, expression: str) -> str:
    """CellProfiler's `and (file does contain "d0") (...)` as lookaheads over a path; Unsupported for what is not known."""
    rest = text.strip()
    operation, _, rest = rest.partition(" ")
    if operation not in ("and", "or"):
        raise Unsupported(f"a rule for images, {printable(text)}")
    parts, depth, begin, quoted = [], 0, 0, False
    for i, c in enumerate(rest):
        quoted ^= c == '"' and rest[i - 1] != "\\"
        if quoted:
            continue
        if c == "(":
            begin = i + 1 if depth == 0 else begin
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0:
                parts.append(rest[begin:i])
    if depth or not parts:
        raise Unsupported(f"a rule for images, {printable(text)}")
    result = [
        f"(?:{rule_as_regex(p, expression)})" if p.startswith(("and ", "or ")) else predicate(p, expression) for p in parts
    ]
    return "".join(result) if operation == "and" else f"(?:{'|'.join(result)})"


def predicate(text: str, expression: str) -> str:
    """One condition as a lookahead."""
    match = PREDICATE.fullmatch(text.strip())
    if not match:
        raise Unsupported(f"a rule for images, {printable(text)}")
    subject, does, verb, key, literal = match.groups()
    look = "(?=" if does == "does" else "(?!"
    literal = re.sub(r"\\(.)", r"\1", literal or "")
    if subject == "metadata":
        return f"{look}{of_metadata(verb if key is None else key, literal, expression)})"
    if subject in ("image", "extension") and literal == "":
        return ""  # what kind of image it is; files are judged when they are read
    inside = literal if verb == "containregexp" else re.escape(literal)
    if subject == "file" and verb in FILE:
        return f"{look}(?:.*/)?{FILE[verb].format(inside)}$)"
    if subject == "directory" and verb in FILE:
        return f"{look}{FILE[verb].replace('[^/]', '.').format(inside)}/[^/]*$)"
    raise Unsupported(f"a rule for images, {printable(text)}")


FILE = {
    "contain": "[^/]*{}[^/]*",
    "containregexp": "[^/]*(?:{})[^/]*",
    "startwith": "{}[^/]*",
    "endwith": "[^/]*{}",
    "eq": "{}",
}


def of_metadata(key: str, value: str, expression: str) -> str:
    """The file's expression with one group's value given."""
    place = re.search(rf"\(\?P<{re.escape(key)}>", expression)
    if not place:
        raise Unsupported(f"a rule for images by metadata {printable(key)}, which its file names do not tell")
    depth, i, in_class = 1, place.end(), False
    while depth and i < len(expression):
        c = expression[i]
        if c == "\\":
            i += 1
        elif c == "[":
            in_class = True
        elif c == "]":
            in_class = False
        elif not in_class:
            depth += {"(": 1, ")": -1}.get(c, 0)
        i += 1
    given = expression[: place.start()] + f"(?:{re.escape(value)})" + expression[i:]
    given = re.sub(r"\(\?P<\w+>", "(?:", given)
    begin = "(?:.*/)?" if given.startswith("^") else "(?:.*/)?[^/]*?"
    return f"{begin}{given.removeprefix('^')}"
