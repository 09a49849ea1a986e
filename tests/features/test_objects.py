"""The object table against NumPy on drawn labels."""

import numpy as np
import pytest
import torch

from jumpgpu.features.objects import find_objects, make_batch
from jumpgpu.gpu.device import Device
from tests.helpers.scenes import CHANNELS, drawn_labels, drawn_pixels, drawn_scene, one_field, ragged_labels, row_masks


def drawn(kind: str) -> dict[str, np.ndarray]:
    labels = ragged_labels() if kind == "ragged" else drawn_labels()
    if kind == "one compartment":
        return {"Blobs": labels["Cells"]}
    if kind == "two":
        return {"Nuclei": labels["Nuclei"], "Cells": labels["Cells"]}
    if kind == "four":
        return {**labels, "Zones": labels["Cells"] * (labels["Nuclei"] == 0)}
    return labels


@pytest.mark.parametrize("kind", ["nested", "ragged", "one compartment", "two", "four"])
def test_every_row_lists_its_own_pixels(kind: str, device: Device) -> None:
    batch = drawn_scene(device, drawn(kind))
    o = batch.objects
    start, stop, pixel, box = o.start.numpy(), o.stop.numpy(), o.pixel.numpy(), o.box.numpy()
    for row, (field, number, name, mask) in enumerate(row_masks(batch)):
        ys, xs = np.nonzero(mask)
        listed = pixel[start[row] : stop[row]]
        np.testing.assert_array_equal(np.sort(listed), ys << 16 | xs, err_msg=f"{name} {number} of field {field}")
        expected = [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1] if len(ys) else [0, 0, 0, 0]
        assert box[row].tolist() == expected
        assert (o.pixel_field.numpy()[start[row] : stop[row]] == field).all()
    y, x = pixel >> 16, pixel & 0xFFFF
    np.testing.assert_array_equal(batch.values.numpy(), batch.pixels.numpy()[o.pixel_field.numpy(), :, y, x].T)


def test_nested_cells_are_listed_once_and_by_class(device: Device) -> None:
    labels = drawn_labels()
    o = drawn_scene(device, labels).objects
    assert o.pixel.numel() == np.count_nonzero(labels["Cells"])
    k, n = 3, o.n
    cells, cytoplasm, nuclei = o.start.view(k, n), o.stop.view(k, n), o.start.view(k, n)
    assert torch.equal(cells[0], o.cell_start[:-1])
    assert torch.equal(cytoplasm[0], o.cell_start[1:])
    full = (o.stop > o.start).view(k, n).all(0)
    assert full.sum() >= 6
    assert torch.equal(cells[1][full], cells[0][full])  # cytoplasm first
    assert torch.equal(cytoplasm[2][full], cytoplasm[0][full])  # nucleus last
    assert (nuclei[2] < cytoplasm[1])[full].all()  # the outline is in both


def test_table(device: Device) -> None:
    labels = drawn_labels()
    o = drawn_scene(device, labels).objects
    n = [int(labels["Cells"][b].max()) for b in range(3)]
    assert o.n_cells == tuple(n)
    assert n[1] == 0
    assert o.field.tolist() == [b for b in range(3) for _ in range(n[b])]
    assert o.number.tolist() == [i + 1 for b in range(3) for i in range(n[b])]
    assert o.field_start.tolist() == np.concatenate([[0], np.cumsum(n)]).tolist()
    assert o.pixel_start.tolist() == np.concatenate([[0], np.cumsum(o.n_pixels)]).tolist()
    size = (o.stop - o.start).numpy()
    np.testing.assert_array_equal(o.schedule.numpy(), np.argsort(-size, kind="stable"))


def test_fields_without_objects(device: Device) -> None:
    o = find_objects({"Cells": torch.zeros(2, 5, 7, dtype=torch.int32)}, device)
    assert (o.n, o.rows, o.pixel.numel(), o.field_start.tolist()) == (0, 0, 0, [0, 0, 0])


def test_more_cells_than_the_first_count_has_room_for(device: Device) -> None:
    labels = torch.arange(1, 1501, dtype=torch.int32).view(1, 30, 50)
    o = find_objects({"Cells": labels}, device)
    assert o.n_cells == (1500,)
    assert o.pixel.tolist() == [y << 16 | x for y in range(30) for x in range(50)]


def test_a_cell_is_listed_alike_whoever_is_beside_it(device: Device) -> None:
    labels = one_field(ragged_labels(), 0)
    last = max(int(v.max()) for v in labels.values())
    fewer = {c: np.where(v == last, 0, v) for c, v in labels.items()}
    o, p = (drawn_scene(device, v).objects for v in (labels, fewer))
    assert p.n == o.n - 1
    for k in range(3):
        for i in range(p.n):
            a = o.pixel[o.start[k * o.n + i] : o.stop[k * o.n + i]]
            assert torch.equal(a, p.pixel[p.start[k * p.n + i] : p.stop[k * p.n + i]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda v: v.__setitem__((2, 3, 3), 99),
            r"field 2 of the batch: labels must be 1\.\.n: \d+ labels, highest 99; relabel first",
        ),
        (lambda v: v.__setitem__((0, 3, 3), -4), r"field 0 of the batch: labels must be 1\.\.n, found -4"),
    ],
)
def test_bad_numbers_name_the_field(change, message: str, device: Device) -> None:
    labels = drawn_labels()["Cells"]
    change(labels)
    with pytest.raises(ValueError, match=message):
        find_objects({"Cells": device.tensor(labels)}, device)


def test_what_cannot_be_listed(device: Device) -> None:
    labels = {c: device.tensor(v) for c, v in drawn_labels().items()}
    with pytest.raises(TypeError, match=r"labels of Cells must be torch.int32, got torch.int64"):
        find_objects({"Cells": labels["Cells"].long()}, device)
    with pytest.raises(ValueError, match=r"Cells is \[3, 83, 101\], Nuclei \[2, 83, 101\]"):
        find_objects({"Cells": labels["Cells"], "Nuclei": labels["Nuclei"][:2]}, device)
    with pytest.raises(ValueError, match="compartments can be measured together, got 5"):
        find_objects({str(i): labels["Cells"] for i in range(5)}, device)
    with pytest.raises(ValueError, match="32767 rows and columns at most"):
        find_objects({"Cells": torch.zeros(1, 1, 40000, dtype=torch.int32)}, device)
    with pytest.raises(ValueError, match=r"at least one field and pixel, got \[0, 5, 7\]"):
        find_objects({"Cells": torch.zeros(0, 5, 7, dtype=torch.int32)}, device)
    pixels = device.tensor(drawn_pixels(drawn_labels()))
    with pytest.raises(ValueError, match=r"C = 4 \(DNA, ER, RNA, AGP\), got \[3, 5, 83, 101\]"):
        make_batch(CHANNELS[:4], pixels, labels, {}, device)
    with pytest.raises(ValueError, match=r"labels are \[B, H, W\] = \[3, 83, 101\], pixels \[3, 5, 83, 100\]"):
        make_batch(CHANNELS, pixels[..., :100], labels, {}, device)
