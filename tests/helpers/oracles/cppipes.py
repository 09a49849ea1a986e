"""Make tests/cellprofiler/pipelines/: CellProfiler 4.2.8.1 writes the files itself, from the settings here (Python 3.9).

    PYTHONHASHSEED=0 python tests/helpers/oracles/cppipes.py tests/cellprofiler/pipelines

`Pipeline.dump` writes each; the settings are those of configs/: CPJUMP1 and JUMP production. Only the `_old` ones are
spelled here as CellProfiler 2 and 3 wrote them; `_old_upgraded` is what CellProfiler 4.2.8.1 makes of those.
"""

import io
import sys
from pathlib import Path

CHANNELS = ("DNA", "ER", "RNA", "AGP", "Mito")
OBJECTS = "Nuclei, Cells, Cytoplasm"
THRESHOLD = 16, 10  # where the threshold's settings begin: primary, secondary


class Writer:
    """A pipeline being put together: `add` takes a module's name and the values of settings, by what they are called."""

    def __init__(self):
        import cellprofiler_core.preferences
        import scipy.linalg

        cellprofiler_core.preferences.set_headless()
        if not hasattr(scipy.linalg, "basic"):
            scipy.linalg.basic = scipy.linalg._basic
        from cellprofiler_core.pipeline import Pipeline

        self.pipeline = Pipeline()

    def add(self, name, *values, revision=None, **by_position):
        """`values`: (what the setting is called, its value) or a whole list of setting values for `revision`."""
        module = self.pipeline.instantiate_module(name)
        module.set_module_num(len(self.pipeline.modules(False)) + 1)
        if values and not isinstance(values[0], tuple):
            module.set_settings_from_values(list(values), revision or module.variable_revision_number, name)
        else:
            for text, value in values:
                result = [s for s in module.settings() if s.text == text]
                assert result, (name, text)
                result[0].set_value_text(str(value)) if hasattr(result[0], "set_value_text") else result[0].set_value(value)
        module.enabled = by_position.get("enabled", True)
        module.notes = list(by_position.get("notes", ()))
        self.pipeline.add_module(module)
        return module

    def text(self):
        out = io.StringIO()
        self.pipeline.dump(out, save_image_plane_details=False)
        return out.getvalue()

    def json(self):
        from cellprofiler_core.pipeline.io._v6 import dump

        out = io.StringIO()
        dump(self.pipeline, out, False)
        return out.getvalue()


def load_data(writer):
    writer.add(
        "LoadData",
        ("Name of the file", "load_data.csv"),
        ("Load images based on this data?", "Yes"),
        ("Group images by metadata?", "Yes"),
        ("Select metadata tags for grouping", "Plate"),
    )


def names_and_types(writer, names):
    writer.add("Images")
    writer.add("Metadata", ("Extract metadata?", "Yes"))
    criterion = 'and (file does contain "ch{}")'
    values = ["Images matching rules", "Grayscale image", "DNA", "[]", "Order", "Image metadata", str(len(names)), "0"]
    values += ["255.0", "No", "1.0", "1.0", "1.0"]
    for number, name in enumerate(names, 1):
        values += [criterion.format(number), name, "Cell", "Grayscale image", "Image metadata", "255.0"]
    writer.add("NamesAndTypes", *values)
    writer.add("Groups", ("Do you want to group your images?", "No"))


def threshold(method, smoothing, correction, lower, upper, classes="Two classes", log="No"):
    values = ["12", "Global", method, smoothing, correction, f"{lower},{upper}", "0.0", "None", classes, log]
    return [*values, "Foreground", "50", "0.05", "0.05", "Mean", "Standard deviation", "2.0", "Minimum Cross-Entropy"]


def apply_functions(writer):
    values = [v for c in CHANNELS for v in (f"Orig{c}", c, f"Illum{c}", "Divide")]
    writer.add("CorrectIlluminationApply", *values, "Yes", "Yes", notes=["Divide | by the plate's functions", "h\u00e9"])


def background(writer):
    values = ["DNA", "IllumBlue", "Background", "No", "1", "30", "No", "Each", "Gaussian Filter", "Manually", "10", "50"]
    values += ["No", "IllumBlueAvg", "No", "IllumBlueDilated", "Yes", "auto", "5", "2.0", "2.0", "40", "0.001"]
    writer.add("CorrectIlluminationCalculate", *values)
    writer.add("CorrectIlluminationApply", "DNA", "CorrBlue", "IllumBlue", "Subtract", "Yes", "Yes")


def measurements(writer):
    images = ", ".join(CHANNELS)
    writer.add(
        "MeasureColocalization",
        images,
        "15.0",
        "Within objects",
        OBJECTS,
        *["No", "Yes", "Yes", "Yes", "Yes", "No", "Faster"],
    )
    writer.add("MeasureGranularity", images, "Yes", OBJECTS, "0.5", "0.5", "10", "16")
    writer.add("MeasureObjectIntensity", images, OBJECTS)
    for objects, method, distance in (
        ("Cells", "Within a specified distance", 5),
        ("Cells", "Adjacent", 5),
        ("Nuclei", "Within a specified distance", 1),
    ):
        values = [
            objects,
            objects,
            method,
            str(distance),
            "Yes",
            "No",
            "ObjectNeighborCount",
            "Blues",
            "No",
            "PercentTouching",
            "Oranges",
        ]
        writer.add("MeasureObjectNeighbors", *values)
    groups = [v for o in OBJECTS.split(", ") for v in (o, "These objects", "None")]
    writer.add("MeasureObjectIntensityDistribution", images, "3", "1", "0", "None", "9", *groups, "Yes", "4", "100")
    writer.add("MeasureObjectSizeShape", OBJECTS, "Yes", "No")
    writer.add("MeasureTexture", images, OBJECTS, "256", "3", "Objects", "3", "5", "10")


def cpjump1(writer, load):
    load(writer)
    apply_functions(writer)
    background(writer)
    primary = [
        "CorrBlue",
        "Nuclei",
        "10,75",
        "Yes",
        "Yes",
        "Shape",
        "Shape",
        "7",
        "8.0",
        "Yes",
        "Never",
        "No",
        "No",
        "Continue",
        "500",
        "Yes",
    ]
    writer.add("IdentifyPrimaryObjects", *primary, *threshold("Minimum Cross-Entropy", "3.0", "1.25", "0.014", "1.0"))
    secondary = ["Nuclei", "Cells", "Watershed - Image", "RNA", "10", "0.05", "No", "No", "FilteredNuclei", "Yes"]
    writer.add("IdentifySecondaryObjects", *secondary, *threshold("Minimum Cross-Entropy", "0.0", "1.0", "0.005", "0.014"))
    writer.add("IdentifyTertiaryObjects", "Cells", "Nuclei", "Cytoplasm", "Yes")
    measurements(writer)
    writer.add("ExportToSpreadsheet")


def illumination(writer, load):
    load(writer)
    for channel in CHANNELS:
        writer.add("Resize", f"Orig{channel}", f"Down{channel}", *RESIZE[:1], "0.2", "0.2", "1.0", *RESIZE[1:])
        values = [
            f"Down{channel}",
            f"Avg{channel}",
            "Regular",
            "No",
            "1",
            "60",
            "Yes",
            "All: Across cycles",
            "Median Filter",
            "Manually",
        ]
        values += ["10", "20", "No", "A", "No", "D", "Yes", "auto", "5", "2.0", "2.0", "40", "0.001"]
        writer.add("CorrectIlluminationCalculate", *values)
        writer.add("Resize", f"Avg{channel}", f"Illum{channel}", *RESIZE[:1], "5", "5", "1.0", *RESIZE[1:])
        writer.add("SaveImages", ("Select the image to save", f"Illum{channel}"), ("Saved file format", "npy"))


RESIZE = "Resize by a fraction or multiple of the original size", "100", "100", "10", "Bilinear", "Manual", "None", "0"


def production(writer, load):
    load(writer)
    quality = [
        "Select...",
        "1",
        "4",
        "1",
        ", ".join(CHANNELS),
        "Yes",
        "Yes",
        "5",
        "10",
        "20",
        "50",
        "Yes",
        "Yes",
        "Yes",
        "No",
        "Otsu",
        "0.1",
    ]
    apply_functions(writer)
    writer.add("MeasureImageQuality", *quality, "Two classes", "Weighted variance", "Foreground")
    background(writer)
    primary = ["CorrBlue", "NucleiIncludingEdges", "15,90", "Yes", "No", "Shape", "Intensity", "10", "8.0", "No"]
    primary += ["After declumping only", "No", "No", "Continue", "500", "Yes"]
    writer.add("IdentifyPrimaryObjects", *primary, *threshold("Minimum Cross-Entropy", "1.0", "1.0", "0.005", "1.0"))
    secondary = [
        "NucleiIncludingEdges",
        "CellsIncludingEdges",
        "Watershed - Image",
        "RNA",
        "10",
        "0.05",
        "No",
        "No",
        "FilteredNuclei",
        "Yes",
    ]
    result = threshold("Otsu", "0.0", "0.7", "0.005", "0.06", "Three classes", "Yes")
    writer.add("IdentifySecondaryObjects", *secondary, *result)
    values = [
        "NucleiIncludingEdges",
        "Nuclei",
        "Image or mask border",
        "Limits",
        "None",
        "Elsewhere...|",
        "rules.txt",
        "1",
        "1",
        "1",
    ]
    values += [
        "Both parents",
        "No",
        "Removed",
        "AreaShape_Area",
        "Yes",
        "0.0",
        "Yes",
        "1.0",
        "CellsIncludingEdges",
        "Cells",
        "No",
    ]
    writer.add("FilterObjects", *values)
    writer.add("IdentifyTertiaryObjects", "Cells", "Nuclei", "Cytoplasm", "Yes")
    tube = ["Mito", "Tube", "Enhance", "10", "Neurites", "1,10", "1.0", "0.0", "0.95", "Tubeness", "Fast", "No"]
    writer.add("EnhanceOrSuppressFeatures", *tube)
    writer.add("Threshold", "Tube", "TubeMask", *threshold("Minimum Cross-Entropy", "1.3488", "1.0", "0.0", "1.0")[1:])
    writer.add("MorphologicalSkeleton", "TubeMask", "Skeleton")
    writer.add("MeasureObjectSkeleton", ("Select the seed objects", "Nuclei"), ("Select the skeletonized image", "Skeleton"))
    measurements(writer)
    groups = [v for o in OBJECTS.split(", ") for v in (o, "These objects", "None")]
    writer.add("MeasureObjectIntensityDistribution", "Tube", "3", "1", "0", "None", "9", *groups, "Yes", "16", "100")
    writer.add("MaskImage", ("Name the output image", "BackgroundRNA"))
    writer.add("MeasureImageIntensity", "BackgroundRNA", "No", "", "No", "10,90")
    writer.add("OverlayOutlines", enabled=False)
    writer.add("ExportToDatabase")


def originals(writer):
    names_and_types(writer, [f"{kind}{c}" for kind in ("Orig", "Illum") for c in CHANNELS])


def raw(writer):
    names_and_types(writer, [f"Orig{c}" for c in CHANNELS])


def old_threshold(revision, values):
    """The values of revision 12 as revision 10 or 11 wrote them; before 11, three classes of Otsu meant logarithms."""
    return [str(revision), *values[1:9], *values[10:]]


def old_modules(production):
    """(module, revision, values) as CellProfiler 3 wrote them: the settings of the two analyses above."""
    n, names = str(len(CHANNELS)), list(CHANNELS)
    objects = OBJECTS.split(", ")
    yield "LoadData", 6, ["Elsewhere...|", "a.csv", "Yes", "Default Input Folder|", "No", "1,100000", "No", "", "Yes"]
    yield "CorrectIlluminationApply", 3, [v for c in names for v in (f"Orig{c}", f"Pre{c}", f"Illum{c}", "Divide")]
    for c in names:  # clipping was a module of its own
        values = ["None", "1.0", "1.0", "0.0", "Yes", "Yes", "No", c, "Image", f"Pre{c}", "1.0", "", "Image", "", "1.0", ""]
        yield "ImageMath", 4, values
    values = ["DNA", "IllumBlue", "Background", "No", "1", "30", "No", "Each", "Gaussian Filter", "Manually", "10", "50"]
    yield "CorrectIlluminationCalculate", 1, [*values, "No", "A", "No", "D"]
    yield "CorrectIlluminationApply", 4, ["DNA", "CorrBlue", "IllumBlue", "Subtract", "No"]
    if production:
        first = ["CorrBlue", "NucleiIncludingEdges", "15,90", "Yes", "No", "Shape", "Intensity", "10", "8.0", "No"]
        first += ["After declumping only", "No", "No", "Continue", "500", "No", "Blue", "Yes"]
        result = threshold("Minimum cross entropy", "1.0", "1.0", "0.005", "1.0")
        yield "IdentifyPrimaryObjects", 14, [*first, *old_threshold(10, result)]
        second = [
            "NucleiIncludingEdges",
            "CellsIncludingEdges",
            "Watershed - Image",
            "RNA",
            "10",
            "0.05",
            "No",
            "No",
            "F",
            "Yes",
        ]
        result = threshold("Otsu", "0.0", "0.7", "0.005", "0.06", "Three classes")
        yield "IdentifySecondaryObjects", 10, [*second, *old_threshold(10, result)]
        values = ["NucleiIncludingEdges", "Nuclei", "Image or mask border", "Limits", "None", "Elsewhere...|", "rules.txt"]
        values += [
            "1",
            "1",
            "1",
            "Both parents",
            "AreaShape_Area",
            "Yes",
            "0.0",
            "Yes",
            "1.0",
            "CellsIncludingEdges",
            "Cells",
        ]
        yield "FilterObjects", 8, values
    else:
        first = ["CorrBlue", "Nuclei", "10,75", "Yes", "Yes", "Shape", "Shape", "7", "8.0", "Yes", "Never", "No", "No"]
        result = threshold("Minimum Cross-Entropy", "3.0", "1.25", "0.014", "1.0")
        yield "IdentifyPrimaryObjects", 13, [*first, "Continue", "500", "Yes", *old_threshold(11, result)]
        second = ["Nuclei", "Cells", "Watershed - Image", "RNA", "10", "0.05", "No", "No", "F", "Yes"]
        result = old_threshold(9, threshold("Minimum cross entropy", "0.0", "1.0", "0.005", "0.014"))[:-1]
        yield "IdentifySecondaryObjects", 10, [*second, *result]
    yield "IdentifyTertiaryObjects", 2, ["Cells", "Nuclei", "Cytoplasm", "No", "Outlines", "Yes"]
    wants = ["No", "Yes", "Yes", "Yes", "Yes", "No"]
    yield "MeasureColocalization", 3, [n, "3", *names, "15.0", "Within objects", *objects, *wants]
    yield "MeasureGranularity", 3, [n, *(v for c in names for v in ("3", c, "0.5", "0.5", "10", "16", *objects))]
    yield "MeasureObjectIntensity", 3, [n, *names, *objects]
    for what, method, distance in (("Cells", "Within a specified distance", "5"), ("Cells", "Adjacent", "5")):
        yield "MeasureObjectNeighbors", 2, [what, what, method, distance, "No", "N", "Blues", "No", "P", "Oranges"]
    values = ["Nuclei", "Within a specified distance", "1", "No", "N", "Blues", "No", "P", "Oranges"]
    yield "MeasureObjectNeighbors", 1 if production else 2, values if production else ["Nuclei", *values]
    groups = [v for o in objects for v in (o, "These objects", "None")]
    values = [n, "3", "1", "0", "None", "9", *names, *groups, "Yes", "4", "100"]
    yield "MeasureObjectIntensityDistribution", 5, values
    yield "MeasureObjectSizeShape", 1, [*objects, "Yes"]
    yield "MeasureTexture", 5, [n, "3", "3", *names, *objects, "3", "5", "10", "Objects"]


def old_text(production):
    """A pipeline file of format 3, its values in UTF-16 with escapes, as CellProfiler 2.1 wrote them."""
    modules = list(old_modules(production))
    lines = ["CellProfiler Pipeline: http://www.cellprofiler.org", "Version:3", "DateRevision:20140124151645"]
    lines += [f"ModuleCount:{len(modules)}", "HasImagePlaneDetails:False", ""]
    for number, (name, revision, values) in enumerate(modules, 1):
        attributes = f"module_num:{number}|svn_version:\\'Unknown\\'|variable_revision_number:{revision}|show_window:False"
        lines.append(f"{name}:[{attributes}|notes:\\x5B\\x5D|batch_state:array(\\x5B\\x5D, dtype=uint8)|enabled:True]")
        for value in values:
            data = b"\xff\xfe" + value.encode("utf-16-le")
            escaped = "".join(chr(b) if chr(b) not in "\\|:" and 32 < b < 127 else f"\\x{b:02x}" for b in data)
            lines.append(f"    Setting:{escaped if number % 2 else value}")
        lines.append("")
    return "\n".join(lines)


def upgraded(text):
    """What CellProfiler makes of an old file: read, brought up to date and written again."""
    writer = Writer()
    writer.pipeline.loadtxt(io.StringIO(text), raise_on_error=True)
    return writer.text()


PIPELINES = {
    "cpjump1_analysis_load_data": (cpjump1, load_data),
    "cpjump1_analysis_names_and_types": (cpjump1, originals),
    "cpjump1_illumination_load_data": (illumination, load_data),
    "cpjump1_illumination_names_and_types": (illumination, raw),
    "jump_production_load_data": (production, load_data),
    "jump_production_names_and_types": (production, originals),
}


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    for name, (build, load) in PIPELINES.items():
        writer = Writer()
        build(writer, load)
        text = writer.text()
        assert upgraded(text) == text, f"{name}: CellProfiler does not read it as it was written"
        (folder / f"{name}.cppipe").write_text(text, encoding="utf-8")
        if name == "jump_production_load_data":
            (folder / f"{name}.json").write_text(writer.json() + "\n", encoding="utf-8")
    for name, production in (("cpjump1_old", False), ("jump_production_old", True)):
        text = old_text(production)
        (folder / f"{name}.cppipe").write_text(text, encoding="utf-8")
        (folder / f"{name}_upgraded.cppipe").write_text(upgraded(text), encoding="utf-8")


if __name__ == "__main__":
    main()
