"""What a table is made of: its rows, what was published, what is aimed at.

Numbers are as tables print them: scores times 100, losses as they are. What was
published is known from one of

  CODE    the README or the model list of the published code
  READ    the paper, or a text that quotes it
  MEMORY  memory of the paper: unconfirmed, and marked so wherever it is shown
"""

import dataclasses
from collections.abc import Mapping

CODE, READ, MEMORY = 'code', 'read', 'memory'

BLEU = ('BLEU-1', 'BLEU-2', 'BLEU-3', 'BLEU-4')


@dataclasses.dataclass(frozen=True)
class Published:
  """A row of somebody's table."""

  source: str
  scores: Mapping[str, float]
  origin: str
  recalled: tuple[str, ...] = ()  # Scores that are MEMORY all the same.

  def origin_of(self, score: str) -> str:
    """CODE, READ or MEMORY."""
    return MEMORY if score in self.recalled else self.origin


def published(
  source: str,
  names: tuple[str, ...],
  values: tuple[float, ...],
  origin: str = READ,
  recalled: tuple[str, ...] = (),
) -> Published:
  """A row of numbers below the names of their scores."""
  return Published(
    source, dict(zip(names, values, strict=True)), origin, recalled
  )


@dataclasses.dataclass(frozen=True)
class Aim:
  """What the mean of a score over the seeds is to be; one of the two."""

  at_least: float | None = None
  at_most: float | None = None

  def is_met(self, mean: float) -> bool:
    """Whether this mean is good enough."""
    if self.at_least is not None:
      return mean >= self.at_least
    return mean <= self.at_most

  def __str__(self) -> str:
    if self.at_least is not None:
      return f'>= {self.at_least:g}'
    return f'<= {self.at_most:g}'


@dataclasses.dataclass(frozen=True)
class DataSet:
  """What is trained and tested on, in full.

  Attributes:
    label: what is printed.
    train: how many examples are published to train on; where no validation is,
      ours is a part of them.
    test: how many examples.
    accelerator: whether training would take days without one.
    prepare: of what scripts/prepare_clips.py prepares, its arguments but for
      the name.
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
    name: of the workdirs.
    label: what is printed.
    config: the file, and its argument after a colon.
    data: that of the config.
    overrides: field -> value, as on the command line.
    start_from: the name of an earlier row, whose run of the same seed training
      starts from.
    published: what is printed below.
    aims: score -> what it is to be; printed below, and judged.
    trained_as: the name of an earlier row with the same config, whose runs hold
      these scores, too: nothing is trained for this one.
    found_at: where in `results.json` the scores are.
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
  found_at: tuple[str, ...] = ('test', 'scores')


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows with the same columns, made by the same main.

  Attributes:
    name: on the command line.
    title: the heading.
    about: how the measured rows differ from the published ones.
    module: what trains.
    columns: heading -> name of a score in `results.json`.
    scale: what measured scores are multiplied by.
    decimals: of the measured scores.
    rows: those that others start from, or are trained as, come first.
  """

  name: str
  title: str
  about: str
  module: str
  columns: Mapping[str, str]
  scale: float
  decimals: int
  rows: tuple[Row, ...]

  def row(self, name: str) -> Row:
    """The row of that name."""
    return {row.name: row for row in self.rows}[name]
