"""A run goes on only as itself; hosts train one run."""

import json
import logging as python_logging
import os
import pathlib
import socket
import subprocess
import sys

import pytest

from training import agreement
from training import parallel

HOST = socket.gethostname()
PATH = pathlib.Path('/runs/a/checkpoints/7')
RUN = {
  'config': {
    'batch_size': 8,
    'log_every': 10,
    'data': {'name': 'coco', 'data_dir': None, 'crop': (2, 3)},
    'optimizer': {'rates': ()},
  },
  'vocabulary': [f'word{i}' for i in range(100)],
  'drawings': {'scale': 30.6, 'length': 20, 'categories': ['cat']},
  'fingerprint': '0123456789abcdef',
  'commit': 'aaaa',
}


def changed(**fields):
  run = {**RUN, 'config': {**RUN['config'], 'data': {**RUN['config']['data']}}}
  for name, value in fields.items():
    *groups, last = name.split('__')
    group = run
    for key in groups:
      group = group[key]
    group[last] = value
  return run


def check(extras, allowed=(), saved=RUN):
  saved = json.loads(json.dumps(saved))  # JSON has no tuples.
  agreement.check_resumed(saved, extras, PATH, allowed)


def test_the_same_run_goes_on():
  check(RUN)
  # Earlier versions saved less.
  check(RUN, saved={'vocabulary': RUN['vocabulary']})


def test_a_run_of_an_earlier_version_goes_on_as_it_was():
  """Its config has the values of before for the fields that came later."""
  before = {'config': {'optimizer': {'b1': 0.9, 'learning_rate': 1.0}}}
  now = {'kind': 'adam', 'momentum': 0.0, 'nesterov': False}
  now |= {'rms_decay': 0.99, 'epsilon': 1e-8, **before['config']['optimizer']}
  check({'config': {'optimizer': now}}, saved=before)
  with pytest.raises(ValueError, match="optimizer.kind is 'adam' there, 'sgd'"):
    check({'config': {'optimizer': {**now, 'kind': 'sgd'}}}, saved=before)


@pytest.mark.parametrize(
  'fields',
  [
    {'config__log_every': 2},
    {'config__data__data_dir': '/elsewhere'},
    {'commit': 'bbbb'},
  ],
)
def test_what_changes_no_number_is_only_logged(fields, caplog):
  with caplog.at_level(python_logging.INFO):
    check(changed(**fields))
  (record,) = caplog.records
  (value,) = fields.values()
  assert f'{value!r} here' in record.getMessage()


@pytest.mark.parametrize(
  'config', [{'patience': 3}, {'optimizer': {'schedule': 'plateau'}}]
)
def test_evaluations_are_not_free_where_training_depends_on_them(config):
  saved = {'config': {'eval_every': 5, **config}}
  with pytest.raises(ValueError, match='config.eval_every is 5 there, 6 here'):
    check({'config': {**saved['config'], 'eval_every': 6}}, saved=saved)
  plain = {'config': {'eval_every': 5, 'patience': 0}}
  check({'config': {'eval_every': 6, 'patience': 0}}, saved=plain)


@pytest.mark.parametrize(
  ('fields', 'messages', 'kind'),
  [
    (
      {'config__batch_size': 16},
      ['config.batch_size is 8 there, 16 here'],
      'config',
    ),
    (
      {'config__data__crop': (2, 4)},
      ['config.data.crop[1] is 3 there, 4 here'],
      'config',
    ),
    (
      {'config__new': 1},
      ['config.new is absent there, 1 here'],
      'config',
    ),
    (
      {'fingerprint': 'f' * 16},
      ["fingerprint is '0123456789abcdef' there, 'ffffffffffffffff' here"],
      'data',
    ),
    (
      {'drawings': {'scale': 68.1, 'length': 20, 'categories': ['cat', 'pig']}},
      [
        'drawings.categories is of 1 items there, of 2 here',
        'drawings.scale is 30.6 there, 68.1 here',
      ],
      'data',
    ),
    (
      {'vocabulary': [*RUN['vocabulary'][:3], *RUN['vocabulary'][:2:-1]]},
      ["vocabulary[3] is 'word3' there, 'word99' here"],
      'vocabulary',
    ),
  ],
)
def test_what_changes_is_named_with_the_flag(fields, messages, kind):
  extras = changed(**fields)
  with pytest.raises(ValueError) as error:
    check(extras, {'config', 'data', 'vocabulary'} - {kind})
  text = str(error.value)
  assert text.startswith(f'{PATH} is of another run: {"; ".join(messages)}.')
  assert text.endswith(f'to go on with the change: --allow_change={kind}')
  check(extras, [kind])


def test_all_flags_are_named_at_once():
  extras = changed(fingerprint='f', vocabulary=[], config__batch_size=1)
  with pytest.raises(ValueError) as error:
    check(extras)
  assert str(error.value).endswith(
    '--allow_change=config --allow_change=data --allow_change=vocabulary'
  )


def test_hosts_that_differ_are_named(monkeypatch):
  monkeypatch.setattr(
    parallel,
    'gather_texts',
    lambda text: [
      text,
      text.replace('"a": 1', '"a": 2').replace('/data', '/there'),
    ],
  )
  agreement.check_hosts({'config': {'data': {'data_dir': '/data'}}})
  with pytest.raises(ValueError) as error:
    agreement.check_hosts({'config': {'a': 1, 'data': {'data_dir': '/data'}}})
  assert (
    f'agree: config.a is 1 in process 0 ({HOST}), 2 in process 1 ({HOST}).'
  ) in str(error.value)


# Two processes, each with its own arguments.
_MAIN = """
import json, sys
from training import agreement, app, parallel

def main(config, workdir):
  texts = parallel.gather_texts('é' * config.n)
  print(json.dumps(texts))
  agreement.check_hosts({'fingerprint': 'f', 'config': config.to_dict()})
  fingerprint = texts[0][: parallel.jax.process_index()]
  agreement.check_hosts({'fingerprint': fingerprint})

app.run(main)
"""


def in_two(tmp_path, *different):
  """Runs `_MAIN` in two processes; returns their statuses and outputs."""
  with socket.socket() as found:
    found.bind(('localhost', 0))
    port = found.getsockname()[1]
  config = tmp_path / 'config.py'
  config.write_text(
    'import ml_collections\n'
    'def get_config():\n'
    '  return ml_collections.ConfigDict({"n": 3})\n'
  )
  started = [
    subprocess.Popen(
      [
        *(sys.executable, '-c', _MAIN, f'--config={config}'),
        f'--workdir={tmp_path}/run',
        f'--coordinator_address=localhost:{port}',
        *('--num_processes=2', f'--process_id={i}', *different[i]),
      ],
      env={
        **os.environ,
        'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for i in range(2)
  ]
  outputs = [process.communicate(timeout=300)[0] for process in started]
  return [process.returncode for process in started], outputs


def test_two_processes_that_differ_both_stop(tmp_path):
  statuses, outputs = in_two(tmp_path, (), ('--config.n=4',))
  assert statuses == [2, 2], outputs
  for output in outputs:
    assert f'config.n is 3 in process 0 ({HOST}), 4 in process 1 (' in output
    assert 'Traceback' not in output
  # What is known later is compared later.
  statuses, outputs = in_two(tmp_path, (), ())
  assert statuses == [2, 2], outputs
  for output in outputs:
    assert '["\\u00e9\\u00e9\\u00e9", "\\u00e9\\u00e9\\u00e9"]' in output
    assert (
      f"fingerprint is '' in process 0 ({HOST}), 'é' in process 1" in output
    )
