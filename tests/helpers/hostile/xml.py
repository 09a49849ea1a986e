"""Harmony indexes that attack their reader."""

import re

from tests.helpers.image_plates import index_xml

HEAD = "<?xml version='1.0'?>"


def with_dtd(dtd: str, name: str = "&x;") -> bytes:
    body = index_xml(name=name).split("?>", 1)[1]
    return f"{HEAD}<!DOCTYPE EvaluationInputData [{dtd}]>{body}".encode()


def laughs(levels: int = 12) -> str:
    lines = ["<!ENTITY a0 'ha'>"]
    lines += [f"<!ENTITY a{k} '{f'&a{k - 1};' * 10}'>" for k in range(1, levels)]
    return "".join(lines) + f"<!ENTITY x '&a{levels - 1};'>"


def image(**changes: str) -> bytes:
    """An index whose every image has these leaves changed."""
    text = index_xml()
    for tag, value in changes.items():
        text = re.sub(rf"(<{tag}[^>]*>)[^<]*<", lambda m, value=value: f"{m[1]}{value}<", text)  # type: ignore[misc]
    return text.encode()


def corpus() -> dict[str, bytes]:
    """Every one of these must be refused by `find_plate` with a ValueError."""
    plain = index_xml()
    body = plain.split("?>", 1)[1]
    return {
        "external entity": with_dtd("<!ENTITY x SYSTEM 'file:///etc/passwd'>"),
        "entity over the network": with_dtd("<!ENTITY x SYSTEM 'http://127.0.0.1:9/x'>"),
        "parameter entity": with_dtd("<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;", "n"),
        "external DTD": f"{HEAD}<!DOCTYPE EvaluationInputData SYSTEM 'file:///etc/passwd'>{body}".encode(),
        "billion laughs": with_dtd(laughs()),
        "quadratic blow-up": with_dtd(f"<!ENTITY x '{'A' * 60000}'>", "&x;" * 5000),
        "empty DTD": with_dtd("", "n"),
        "nesting 10^6 deep": (HEAD + "<EvaluationInputData>" + "<a>" * 10**6).encode(),
        "nesting 10^6 deep, closed": (
            HEAD + "<EvaluationInputData>" + "<a>" * 10**6 + "</a>" * 10**6 + "</EvaluationInputData>"
        ).encode(),
        "attribute of 3 MB": f"{HEAD}<EvaluationInputData a='{'A' * 3_000_000}'/>".encode(),
        "a million attributes": (
            HEAD + "<EvaluationInputData " + " ".join(f"a{k}='1'" for k in range(10**6)) + "/>"
        ).encode(),
        "text of 3 MB": plain.replace("<Name>BR00000001", "<Name>" + "A" * 3_000_000).encode(),
        "tag of 3 MB": f"{HEAD}<EvaluationInputData><{'A' * 3_000_000}/></EvaluationInputData>".encode(),
        "comment of 3 MB": f"{HEAD}<!--{'A' * 3_000_000}--><a/>".encode(),
        "another root": b"<html><Images/></html>",
        "no image": b"<EvaluationInputData/>",
        "empty": b"",
        "truncated": plain[: len(plain) // 2].encode(),
        "null bytes": plain.replace("<Name>", "<Name>\0").encode(),
        "unknown encoding": b"<?xml version='1.0' encoding='klingon'?>" + body.encode(),
        "lying encoding": b"<?xml version='1.0' encoding='utf-16'?>" + body.encode(),
        "invalid UTF-8": plain.encode().replace(b"BR00000001", b"\xff\xfe\xfd"),
        "binary": bytes(range(256)) * 40,
        "upward path": image(URL="../../../../etc/passwd"),
        "absolute path": image(URL="/etc/passwd"),
        "Windows path": image(URL=r"C:\Windows\win.ini"),
        "backslash path": image(URL=r"..\x.tiff"),
        "URL": image(URL="http://127.0.0.1:9/x.tiff"),
        "dot": image(URL=".."),
        "null in a name": image(URL="x&#0;.tiff"),
        "newline in a name": image(URL="x&#10;y.tiff"),
        "name of 300 characters": image(URL="x" * 300),
        "row of 30 digits": image(Row="9" * 30),
        "row 99": image(Row="99"),
        "negative row": image(Row="-1"),
        "Arabic digits": image(Row="١"),
        "column as text": image(Col="=1+1"),
        "field without number": image(FieldID=""),
        "size zero": image(ImageSizeX="0"),
        "size of 4 billion": image(ImageSizeX="999999999", ImageSizeY="999999999"),
        "pixel size NaN": image(ImageResolutionX="NaN"),
        "each image twice": plain.replace(
            "</Images>", plain.split("<Images>")[1].split("</Images>")[0] + "</Images>"
        ).encode(),
        "two planes": index_xml(planes=(1, 2)).encode(),
        "10^5 channels": index_xml(
            extra="".join(f"<Entry ChannelID='{k}'><ChannelName>c</ChannelName></Entry>" for k in range(10**5))
        ).encode(),
    }


def unneeded() -> dict[str, bytes]:
    """What is wrong in these is refused by whom needs it, and nobody else."""
    return {
        "position infinite": image(PositionX="inf"),
        "flat field without end": index_xml(
            extra="<Entry ChannelID='5'><FlatfieldProfile>{Background: {Profile: {Dims: [[</FlatfieldProfile></Entry>"
        ).encode(),
        "flat field of many brackets": index_xml(
            extra="<Entry ChannelID='5'><FlatfieldProfile>{Background: {Profile: {Type: Polynomial, Coefficients: "
            + "[" * 5000
            + "}}</FlatfieldProfile></Entry>"
        ).encode(),
        "flat field that backtracks": index_xml(
            extra="<Entry ChannelID='5'><FlatfieldProfile>" + "Background: {" * 600 + "</FlatfieldProfile></Entry>"
        ).encode(),
    }
