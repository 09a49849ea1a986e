"""load_data.csv files that attack their reader: each must be refused with a ValueError."""

from tests.helpers.image_plates import image_name, load_data_csv

HEADER = load_data_csv(".").split("\n")[0]


def named(old: str, new: str) -> bytes:
    return load_data_csv("Images").replace(old, new).encode()


def corpus() -> dict[str, bytes]:
    dna = image_name("A01", 1, 5)
    good = load_data_csv("Images")
    return {
        "folder upwards": load_data_csv("../../etc").encode(),
        "folder upwards inside": load_data_csv("Images/../../x").encode(),
        "absolute folder": load_data_csv("/etc").encode(),
        "home folder of another": load_data_csv("/root/.ssh").encode(),
        "Windows folder": load_data_csv(r"C:\x").encode(),
        "UNC folder": load_data_csv(r"\\server\share").encode(),
        "URL folder": load_data_csv("file:///etc").encode(),
        "folder with null": load_data_csv("Im\0ages").encode(),
        "file upwards": named(dna, "../../../etc/passwd"),
        "file absolute": named(dna, "/etc/passwd"),
        "file of dots": named(dna, ".."),
        "file with null": named(dna, "x\0.tiff"),
        "file with a drive": named(dna, "C:x.tiff"),
        "formula as well": named(",A01,", ",=HYPERLINK(1),"),
        "formula as site": named("A01,1,", "A01,=1+1,"),
        "well of odd Unicode": named(",A01,", ",\u202eA01,"),
        "full-width well": named(",A01,", ",\uff21\uff10\uff11,"),
        "site of Arabic digits": named("A01,1,", "A01,\u0661,"),
        "site of 40 digits": named("A01,1,", f"A01,{'1' * 40},"),
        "site negative": named("A01,1,", "A01,-1,"),
        "no plate column": named("Metadata_Plate", "Plate"),
        "no well column": named("Metadata_Well", "Well"),
        "column twice": named("PathName_OrigAGP", "PathName_OrigMito"),
        "no channels": b"Metadata_Plate,Metadata_Well,Metadata_Site\nBR00000001,A01,1\n",
        "header only": (HEADER + "\n").encode(),
        "empty": b"",
        "null bytes": b"\0" * 1000,
        "binary": bytes(range(256)) * 50,
        "UTF-16": good.encode("utf-16"),
        "a line of 1 MB": (HEADER + "\n" + "x" * 1_000_000).encode(),
        "a cell of 200 kB": (HEADER + '\nBR00000001,A01,1,"' + "x\n" * 100_000 + '"\n').encode(),
        "a quote without end": (HEADER + '\n"' + "BR00000001,A01,1\n" * 100_000).encode(),
        "50,000 columns": (HEADER + "," + ",".join("abcdefghij"[k % 10] for k in range(50_000)) + "\n").encode(),
        "5,000 channels": (
            "Metadata_Plate,Metadata_Well,Metadata_Site," + ",".join(f"URL_{k}" for k in range(5000)) + "\n"
        ).encode(),
        "10^6 rows of one site": (HEADER + "\n" + good.split("\n")[1] + "\n").encode()
        + (good.split("\n")[1] + "\n").encode() * 1000,
    }
