"""Marks against a full array of labels, to which the same is done."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nni_aiop.graphs.edits import _marks
from nni_aiop.graphs.edits._marks import Marks, squeezed


def full(marks: Marks) -> list[NDArray[np.int64]]:
    """Every layer with an entry for each of the tensor's."""
    return [np.broadcast_to(layer, marks.shape) for layer in marks.layers]


def lines(values: NDArray[np.int64]) -> list[list[int]]:
    return values.tolist()


@st.composite
def marked(draw: st.DrawFn) -> Marks:
    """A tensor with labels along one or two of its axes."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4)))
    varies = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    sizes = [n if v else 1 for n, v in zip(shape, varies, strict=True)]
    labels = np.arange(1, 1 + int(np.prod(sizes))).reshape(sizes)
    return Marks(shape, [labels])


@st.composite
def factored(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """A shape of a size."""
    shape: list[int] = []
    while size > 1:
        factor = draw(st.sampled_from([n for n in range(2, size + 1) if size % n == 0]))
        shape.append(factor)
        size //= factor
        if draw(st.booleans()):
            shape.append(1)
    return tuple(shape)


@settings(max_examples=150, deadline=None)
@given(marked(), st.data())
def test_a_reshape_moves_labels_as_it_moves_data(marks: Marks, data: st.DataObject) -> None:
    shape = data.draw(factored(int(np.prod(marks.shape))))
    after = marks.reshaped(shape)
    assert after.shape == shape
    assert [lines(x) for x in full(after)] == [lines(x.reshape(shape)) for x in full(marks)]
    for layer in after.layers:
        assert all(n in (1, size) for n, size in zip(layer.shape, shape, strict=True))
        # No axis is written out along which labels do not change.
        assert squeezed(layer).shape == layer.shape


@settings(max_examples=60, deadline=None)
@given(marked(), st.randoms(use_true_random=False))
def test_a_transpose_moves_labels_as_it_moves_data(marks: Marks, random: object) -> None:
    order = list(range(len(marks.shape)))
    random.shuffle(order)  # type: ignore[attr-defined]
    after = marks.permuted(order)
    assert [lines(x) for x in full(after)] == [lines(x.transpose(order)) for x in full(marks)]


def test_channels_that_are_split_into_heads_are_a_grid() -> None:
    marks = Marks.along((1, 5, 6), 2, np.arange(1, 7)).reshaped((1, 5, 2, 3))
    (layer,) = marks.layers
    assert layer.shape == (1, 1, 2, 3)
    assert layer.ravel().tolist() == [1, 2, 3, 4, 5, 6]
    assert [len(marks.varying(axis)) for axis in range(4)] == [0, 0, 1, 1]
    assert marks.constant([0, 1]) == (layer,)
    assert marks.constant([3]) == ()


def test_channels_that_are_flattened_with_positions_repeat_their_labels() -> None:
    marks = Marks.along((1, 3, 2, 2), 1, np.array([7, 8, 9])).reshaped((1, 12))
    assert marks.layers[0].tolist() == [[7, 7, 7, 7, 8, 8, 8, 8, 9, 9, 9, 9]]


def test_a_layer_of_one_label_is_none() -> None:
    assert Marks((4, 1), [np.array([[3]])]).layers == ()


def test_a_reshape_to_another_size_is_refused() -> None:
    for marks in (Marks((2, 3)), Marks.along((2, 3), 1, np.arange(3))):
        with pytest.raises(ValueError, match=r"\(2, 3\) is not \(7,\)"):
            marks.reshaped((7,))


def test_labels_that_are_mixed_with_too_many_entries_are_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_marks, "MOST_ENTRIES", 100)
    marks = Marks.along((1, 3, 8, 8), 1, np.arange(1, 4))
    with pytest.raises(ValueError, match="channels are mixed over 192 entries"):
        marks.reshaped((1, 192))
    assert marks.reshaped((1, 3, 64)).layers[0].shape == (1, 3, 1)
