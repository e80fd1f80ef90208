"""The parts of a table: rows, published scores, aims.

Numbers are as tables print them: scores times 100, losses unscaled. The
origin of a published score is one of

  CODE    the README or the model list of the published code
  READ    the paper, or a text that quotes it
  MEMORY  memory of the paper: unconfirmed, and marked so wherever it is shown
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

CODE, READ, MEMORY = 'code', 'read', 'memory'

BLEU = ('BLEU-1', 'BLEU-2', 'BLEU-3', 'BLEU-4')


@dataclasses.dataclass(frozen=True)
class Published:
  """A row of a published table.

  Attributes:
    source: paper or code.
    scores: by name.
    origin: of the scores.
    recalled: scores with the origin MEMORY.
    std: score -> sample standard deviation over runs, where it is published.
  """

  source: str
  scores: Mapping[str, float]
  origin: str
  recalled: tuple[str, ...] = ()
  std: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def score_origin(self, score: str) -> str:
    """The origin of a score: CODE, READ or MEMORY."""
    return MEMORY if score in self.recalled else self.origin


def published(
  source: str,
  names: tuple[str, ...],
  values: tuple[float, ...],
  origin: str = READ,
  recalled: tuple[str, ...] = (),
  std: tuple[float, ...] = (),
) -> Published:
  """Makes a row from the names and the values of its scores."""
  return Published(
    source,
    dict(zip(names, values, strict=True)),
    origin,
    recalled,
    dict(zip(names, std, strict=True)) if std else {},
  )


@dataclasses.dataclass(frozen=True)
class Aim:
  """A bound for the mean of a score over the seeds: a minimum or a maximum."""

  at_least: float | None = None
  at_most: float | None = None

  def is_met(self, mean: float) -> bool:
    """Returns True if this mean is within the bound."""
    if self.at_least is not None:
      return mean >= self.at_least
    return mean <= self.at_most

  def __str__(self) -> str:
    if self.at_least is not None:
      return f'>= {self.at_least:g}'
    return f'<= {self.at_most:g}'


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A published data set.

  Attributes:
    label: printed name.
    train: number of published training examples; without a published validation
      split they include ours.
    test: number of test examples.
    accelerator: training would take days without one.
    prepare: arguments of scripts/prepare_clips.py; without a name that of the
      config is passed.
  """

  label: str
  train: int
  test: int
  accelerator: bool
  prepare: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
  """One experiment; its runs differ in the seed.

  Attributes:
    name: part of the names of the workdirs.
    label: printed name.
    config: file, and its argument after a colon.
    data: data set of the config.
    overrides: field -> value, as on the command line.
    start_from: the name of an earlier row, whose run of the same seed training
      starts from.
    published: published rows, printed below this one.
    aims: score -> its bound; printed below, and checked.
    trained_as: the name of an earlier row with the same config, whose runs hold
      these scores, too: nothing is trained for this one.
    mean_of: the names of earlier rows, such as the folds of a data set: the
      scores of a seed are the means over theirs, and nothing is trained.
    found_at: keys of the scores in `results.json`.
  """

  name: str
  label: str
  config: str
  data: DataSet
  overrides: Mapping[str, str] = dataclasses.field(default_factory=dict)
  start_from: str = ''
  published: tuple[Published, ...] = ()
  aims: Mapping[str, Aim] = dataclasses.field(default_factory=dict)
  trained_as: str = ''
  mean_of: tuple[str, ...] = ()
  found_at: tuple[str, ...] = ('test', 'scores')


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows with the same columns, trained by the same command.

  Attributes:
    name: name on the command line.
    title: the heading.
    about: how the measured rows differ from the published ones.
    module: module of the command that trains.
    columns: heading -> name of a score in `results.json`.
    scale: factor of the measured scores.
    decimals: number of decimals of the measured scores.
    rows: rows that others start from, or are trained as, come first.
    appendix: from the name of each row to the entry of its first run that has
      ended, lines of Markdown; None for none.
    others: rows to compare with that belong to none of `rows`, such as the
      scores of human captions; printed below them.
    unscaled: scores that `scale` does not change.
  """

  name: str
  title: str
  about: str
  module: str
  columns: Mapping[str, str]
  scale: float
  decimals: int
  rows: tuple[Row, ...]
  appendix: Callable[[Mapping[str, Mapping[str, Any]]], list[str]] | None = None
  others: tuple[Published, ...] = ()
  unscaled: tuple[str, ...] = ()

  @property
  def trained(self) -> tuple[Row, ...]:
    """The rows that have runs of their own."""
    return tuple(r for r in self.rows if not r.trained_as and not r.mean_of)

  def row(self, name: str) -> Row:
    """Returns the row with a name."""
    return {row.name: row for row in self.rows}[name]

  def scale_of(self, score: str) -> float:
    """Returns the factor of a measured score."""
    return 1 if score in self.unscaled else self.scale
