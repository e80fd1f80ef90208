"""The queue of a model: its bound, its order and its failures."""

import asyncio
import threading

import pytest

from demo import queues

PATIENCE = 60


class Reports(list):
  """The reports of a request; `last` waits for its end."""

  def __init__(self):
    super().__init__()
    self._ended = threading.Event()

  def __call__(self, value):
    self.append(value)
    if isinstance(value, queues.Done | queues.Failed):
      self._ended.set()

  @property
  def last(self):
    assert self._ended.wait(PATIENCE)
    return self[-1]


class Gate:
  """Computes squares, once it is open; remembers the batches."""

  def __init__(self):
    self.open = threading.Event()
    self.begun = threading.Event()
    self.batches = []

  def __call__(self, jobs):
    self.begun.set()
    assert self.open.wait(PATIENCE)
    self.batches.append(jobs)
    if any(job < 0 for job in jobs):
      raise ValueError('negative')
    return [job * job for job in jobs]


@pytest.fixture
def gate():
  return Gate()


@pytest.fixture
def worker(gate):
  worker = queues.Worker(
    queues.BatchEngine(gate, 3), name='test', max_requests=6
  )
  yield worker
  gate.open.set()
  worker.stop()


def submit(worker, *jobs):
  found = [Reports() for _ in jobs]
  requests = [
    worker.submit(job, reports)
    for job, reports in zip(jobs, found, strict=True)
  ]
  return found, requests


def test_what_waits_becomes_batches_in_order(worker, gate):
  found, _ = submit(worker, 1)
  assert gate.begun.wait(PATIENCE)
  more, _ = submit(worker, 2, 3, 4, 5)
  gate.open.set()
  assert [reports.last for reports in [*found, *more]] == [
    queues.Done(job * job) for job in (1, 2, 3, 4, 5)
  ]
  assert gate.batches == [[1], [2, 3, 4], [5]]


def test_a_full_queue_is_busy_and_then_no_more(worker, gate):
  found, _ = submit(worker, *range(6))
  with pytest.raises(queues.Busy, match='6 requests are already waiting'):
    worker.submit(6, print)
  gate.open.set()
  assert [reports.last.value for reports in found] == [0, 1, 4, 9, 16, 25]
  (reports,), _ = submit(worker, 6)
  assert reports.last == queues.Done(36)


def test_failures_are_reported_and_the_thread_continues(worker, gate):
  found, _ = submit(worker, 1)
  assert gate.begun.wait(PATIENCE)
  failing, _ = submit(worker, 2, -1)
  gate.open.set()
  assert found[0].last == queues.Done(1)
  for reports in failing:
    assert str(reports.last.error) == 'negative'
  for i in range(10):  # Nothing of the failed ones is left.
    (reports,), _ = submit(worker, i)
    assert reports.last == queues.Done(i * i)


def test_who_cancels_is_not_computed_and_makes_room(worker, gate):
  found, _ = submit(worker, 1)
  assert gate.begun.wait(PATIENCE)
  more, requests = submit(worker, 2, 3)
  requests[0].cancel()
  gate.open.set()
  assert more[1].last == queues.Done(9)
  assert found[0].last == queues.Done(1)
  assert not more[0]
  assert gate.batches == [[1], [3]]
  many, _ = submit(worker, *range(6))
  assert [reports.last.value for reports in many] == [i * i for i in range(6)]


def test_after_the_stop_nothing_is_taken_on(gate):
  gate.open.set()
  worker = queues.Worker(queues.BatchEngine(gate, 3), name='test')
  worker.stop()
  with pytest.raises(queues.Busy):
    worker.submit(1, print)


def test_ask_returns_raises_and_cancels(worker, gate):
  async def ask():
    asked = asyncio.create_task(worker.ask(1))
    while not gate.begun.is_set():
      await asyncio.sleep(0.001)
    leaving = asyncio.create_task(worker.ask(2))
    failing = asyncio.create_task(worker.ask(-3))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    gate.open.set()
    assert await asked == 1
    with pytest.raises(ValueError, match='negative'):
      await failing

  asyncio.run(ask())
  assert gate.batches == [[1], [-3]]
