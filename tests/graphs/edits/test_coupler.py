"""Ties between labels by hand."""

import numpy as np

from nni_aiop.graphs.edits._coupler import Coupler
from nni_aiop.graphs.edits._marks import Labels, Marks

Pairs = list[tuple[Labels, Labels]]


def coupler() -> Coupler:
    c = Coupler()
    c.begin("layer (conv)")
    return c


def test_ties_make_classes() -> None:
    c = coupler()
    a, b = c.fresh(3), c.fresh(3)
    c.tie(a, b)
    c.tie(a[:1], a[1:2])
    of = c.solve().of
    assert of[1] == of[2] == of[4] == of[5]
    assert of[3] == of[6] != of[1]
    assert len({of[0], of[1], of[3]}) == 3


def test_labels_without_ties_are_classes_of_their_own() -> None:
    c = coupler()
    c.fresh(5)
    assert len(set(c.solve().of.tolist())) == 6
    assert set(c.solve().reasons) == {0}  # label 0 stays


def test_a_tie_broadcasts() -> None:
    c = coupler()
    a = c.fresh(6).reshape(2, 3)
    c.tie(a, a[:, :1])
    assert len(set(c.solve().of[1:].tolist())) == 2


def test_what_is_frozen_has_the_operation_and_the_first_reason() -> None:
    c = coupler()
    a = c.fresh(4)
    c.tie(a[0], a[3])
    c.freeze(Marks.along((1, 1), 1, a[:1]), "one label is no layer")
    c.freeze(Marks.along((1, 2), 1, a[:2]), "it is needed")
    c.begin("other (add)")
    c.freeze(Marks.along((1, 2), 1, a[2:]), "it is needed here too")
    classes = c.solve()
    why = [classes.reasons[classes.of[label]] for label in a]
    assert why == [
        "layer (conv): it is needed",
        "layer (conv): it is needed",
        "other (add): it is needed here too",
        "layer (conv): it is needed",
    ]


def test_a_label_that_is_tied_to_none_stays() -> None:
    c = coupler()
    a = c.fresh(3)
    c.tie(a, np.array([0, a[1], 0]), "it stands beside a constant")
    classes = c.solve()
    frozen = [int(classes.of[label]) in classes.reasons for label in a]
    assert frozen == [True, False, True]
    assert classes.reasons[int(classes.of[a[0]])] == "layer (conv): it stands beside a constant"


def grid(c: Coupler, rows: int, columns: int) -> tuple[Labels, Pairs]:
    labels = c.fresh(rows * columns).reshape(rows, columns)
    by_row = labels.ravel(), np.broadcast_to(labels[:, :1], labels.shape).ravel()
    by_column = labels.ravel(), np.broadcast_to(labels[:1], labels.shape).ravel()
    return labels, [by_row, by_column]


def test_of_two_choices_the_one_with_more_classes_is_taken() -> None:
    for rows, columns in ((2, 5), (5, 2)):
        c = coupler()
        labels, options = grid(c, rows, columns)
        c.choose(options)
        of = c.solve().of[labels]
        assert len(np.unique(of)) == 5
        # All of a row, or all of a column, is one class.
        assert (of == (of[:1] if columns == 5 else of[:, :1])).all()


def test_heads_and_widths_take_their_own_choice() -> None:
    c = coupler()
    labels, options = grid(c, 2, 5)
    c.choose(options, widths=1, heads=0)
    assert len(np.unique(c.solve().of[labels])) == 5
    assert len(np.unique(c.solve(heads=True).of[labels])) == 2


def test_a_choice_that_holds_already_costs_nothing() -> None:
    c = coupler()
    labels, options = grid(c, 2, 5)
    c.tie(*options[0])
    c.choose(options)
    # Whole rows go anyway: 2 classes, where columns would leave 1.
    assert len(np.unique(c.solve().of[labels])) == 2


def test_a_grid_that_is_watched_stays_a_block() -> None:
    c = coupler()
    labels = c.fresh(6).reshape(1, 2, 3)
    c.watch(Marks((4, 2, 3), [labels]))
    of = c.solve().of[labels[0]]
    assert (of == of[:1]).all() and len(np.unique(of)) == 3


def test_terms_that_broadcast_meet_where_both_change() -> None:
    c = coupler()
    a, b = c.fresh(3), c.fresh(2)
    rows = Marks.along((2, 3), 1, a)
    columns = Marks.along((2, 1), 0, b)
    merged = c.merged((2, 3), [rows, columns])
    # Neither has labels along the other's axis: the first meets full length along axis 0 ...
    assert [layer.shape for layer in merged.layers if layer.size > 1] == [(1, 3)]
    classes = c.solve()
    # ... so that the labels of rows stay, and those along axis 1 are free.
    assert all(int(classes.of[label]) in classes.reasons for label in b)
    assert not any(int(classes.of[label]) in classes.reasons for label in a)
