"""Reads collections of clips, and decodes each once to check it.

  classes            a folder per class, of video files or folders of frames
  ucf101             UCF101 with its official lists (Soomro et al. 2012)
  captioned          MSR-VTT's JSON (Xu et al. 2016), or MSVD's captions (Chen
                     and Dolan 2011) with lists of the splits

Clips of one group (a person or a recording) are in one split, if the files name
the groups.

Axes: T time, H height, W width, C channels.
"""

import collections
import dataclasses
import hashlib
import os
import pathlib
import re
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np

from training import directories
from training import problems as problems_lib
from training import text_files
from video import frames as frames_lib

SPLITS = ('train', 'validation', 'test')
# Names of splits in files and folders -> ours.
_NAMES = {
  'train': 'train',
  'training': 'train',
  'val': 'validation',
  'validate': 'validation',
  'validation': 'validation',
  'test': 'test',
  'testing': 'test',
}
# UCF11, UCF50 and UCF101: clips of one group were cut from one recording.
_GROUP = re.compile(r'_(g\d+)_c\d+$')


@dataclasses.dataclass(frozen=True)
class Clip:
  """A clip with a class or with captions."""

  id: str
  split: str  # 'train', 'validation' or 'test'.
  frames: pathlib.Path | np.ndarray  # For frames.read; or uint8[T, H, W, C].
  label: str = ''
  captions: tuple[str, ...] = ()
  group: str = ''  # The person or the recording, if known.


def classes(
  directory: str | os.PathLike, *, skip_bad: bool = False
) -> tuple[list[Clip], str]:
  """Reads a folder per class: video files, .npy, .npz, folders of frames.

  Folders 'train', 'val' or 'validation', and 'test' above the classes are the
  splits. Otherwise a tenth each is for validation and for testing, by the hash
  of the group: g07 for `..._g07_c01.avi`, the clip itself for other names.

  Args:
    directory: directory of the classes, or of the splits.
    skip_bad: leave out bad clips instead of raising an error.

  Returns:
    The good clips, and a text that lists the problems of the others.

  Raises:
    ValueError: it lists all problems, unless `skip_bad`.
  """
  directory = check_directory(directory, 'of folders, one a class')
  problems = problems_lib.Problems()
  found = folders(directory)
  split_folders = [f for f in found if f.name.lower() in _NAMES]
  candidates = []
  if split_folders:
    for folder in found:
      if folder not in split_folders:
        problems['beside the folders of the splits'].append(str(folder))
    for folder in split_folders:
      split = _NAMES[folder.name.lower()]
      candidates += _labelled(folder, split, problems)
  else:
    candidates = _labelled(directory, None, problems)
  return _finish(directory, candidates, problems, skip_bad)


def _labelled(directory, split, problems) -> list[Clip]:
  clips = []
  for folder in folders(directory):
    found = [path for path in _sorted(folder) if _is_clip(path)]
    if not found:
      problems['class without clips'].append(str(folder))
    for path in found:
      stem = path.name if path.is_dir() else path.stem
      match = _GROUP.search(stem)
      group = match[1] if match else ''
      clips.append(
        Clip(
          id=f'{split}/{folder.name}/{path.name}'
          if split
          else f'{folder.name}/{path.name}',
          split=split or split_of(group or f'{folder.name}/{path.name}'),
          frames=path,
          label=folder.name,
          group=group,
        )
      )
  return clips


def split_of(group: str) -> str:
  """The split of a group by its hash: a tenth each to validate and test."""
  digest = hashlib.sha256(group.encode()).digest()
  return {0: 'validation', 1: 'test'}.get(
    int.from_bytes(digest[:8], 'big') % 10, 'train'
  )


def ucf101(
  videos: str | os.PathLike,
  lists: str | os.PathLike,
  *,
  number: int = 1,
  skip_bad: bool = False,
) -> tuple[list[Clip], str]:
  """Reads UCF101's videos (`Class/v_Class_g01_c01.avi`) by an official split.

  The lists have no validation split: every ninth group of the training list is
  for validation, so that no recording is in both.

  Args:
    videos: directory of the folders of the classes.
    lists: directory of classInd.txt, trainlist01.txt, testlist01.txt, ...
    number: number of the split, 1 to 3.
    skip_bad: leave out bad clips instead of raising an error.

  Returns and raises as `classes`.
  """
  videos = check_directory(videos, "of UCF101's classes")
  lists = check_directory(lists, 'of trainlist01.txt and the other lists')
  problems = problems_lib.Problems()
  names = set()
  for line_number, line in text_files.lines(lists / 'classInd.txt'):
    if len(line.split()) == 2:
      names.add(line.split()[1])
    else:
      problems['not the number and the name of a class'].append(
        f'classInd.txt: line {line_number}: {line[:60]!r}'
      )
  listed = {}
  for split in ('train', 'test'):
    path = lists / f'{split}list{number:02d}.txt'
    for _, line in text_files.lines(path):
      # In training lists the number of the class follows.
      file = re.sub(r'\s+\d+$', '', line)
      match = _GROUP.search(pathlib.PurePosixPath(file).stem)
      label = pathlib.PurePosixPath(file).parent.name
      if match is None or label not in names:
        problems['not Class/v_Class_g01_c01.avi, or no class'].append(
          f'{path.name}: {line[:200]}'
        )
      elif file in listed:
        problems['listed twice'].append(f'{path.name}: {file}')
      else:
        listed[file] = split, label, match[1]
  groups = sorted(
    {group for split, _, group in listed.values() if split == 'train'}
  )
  held_out = set(groups[4::9] or groups[-1:])
  # The lists and the archive differ in capital letters (HandStandPushups).
  files = {
    f'{folder.name}/{path.name}'.lower(): path
    for folder in folders(videos)
    for path in directories.entries(folder)
  }
  problems['missing file'] += [
    str(videos / file) for file in listed if file.lower() not in files
  ]
  candidates = [
    Clip(
      id=pathlib.PurePosixPath(file).stem,
      split='validation' if split == 'train' and group in held_out else split,
      frames=files[file.lower()],
      label=label,
      group=group,
    )
    for file, (split, label, group) in listed.items()
    if file.lower() in files
  ]
  return _finish(videos, candidates, problems, skip_bad)


def captioned(
  videos: str | os.PathLike,
  captions: Sequence[str | os.PathLike],
  *,
  splits: str | os.PathLike | None = None,
  skip_bad: bool = False,
) -> tuple[list[Clip], str]:
  """Reads videos with all of their captions, as of MSR-VTT and MSVD.

  Args:
    videos: directory of the files, named by their ids: `video0.mp4`.
    captions: files of one of three kinds. MSR-VTT's JSON, with `videos` that
      have `video_id` and `split` and with `sentences` that have `video_id` and
      `caption` (its training and its test file can both be given). A JSON
      object of ids -> lists of captions. MSVD's AllVideoDescriptions.txt, with
      lines of an id, a space and a caption.
    splits: for the last two, a directory of train_list.txt, val_list.txt and
      test_list.txt, with an id in each line.
    skip_bad: leave out bad clips instead of raising an error.

  Returns and raises as `classes`.
  """
  videos = check_directory(videos, 'of the video files')
  problems = problems_lib.Problems()
  split_by_id, by_id = {}, collections.defaultdict(list)
  for path in map(pathlib.Path, captions):
    if path.suffix == '.json':
      _read_json(path, split_by_id, by_id, problems)
    else:
      _read_descriptions(path, by_id, problems)
  if splits is not None:
    split_by_id |= _read_split_lists(pathlib.Path(splits), problems)
  elif not split_by_id:
    raise ValueError(
      f'{captions[0]} does not name the split of each video: pass the '
      'directory of train_list.txt, val_list.txt and test_list.txt as splits'
    )
  problems['captions, but in no split'] += sorted(set(by_id) - set(split_by_id))
  files = collections.defaultdict(list)
  for path in _sorted(videos):
    if _is_clip(path):
      files[path.name if path.is_dir() else path.stem].append(path)
  candidates = []
  for name, split in split_by_id.items():
    # Line breaks end a caption in the official tools for evaluation.
    sentences = [' '.join(sentence.split()) for sentence in by_id[name]]
    good = tuple(s for s in sentences if re.search(r'\w', s))
    if len(good) < len(sentences):
      problems['caption without a word'].append(name)
    if not good:
      problems['video without captions'].append(name)
    elif len(files[name]) == 1:
      candidates.append(Clip(name, split, files[name][0], captions=good))
    elif files[name]:
      problems['more than one file of a video'].append(
        ', '.join(path.name for path in files[name])
      )
    else:
      problems['missing file'].append(str(videos / f'{name}.mp4'))
  return _finish(videos, candidates, problems, skip_bad)


def _read_json(path, split_by_id, by_id, problems):
  content = text_files.read_json(path)
  if not isinstance(content, dict):
    raise ValueError(
      f'{path} must hold an object: `videos` and `sentences` as MSR-VTT has '
      'them, or ids with their captions'
    )
  if 'sentences' not in content:
    for name, sentences in content.items():
      if isinstance(sentences, list) and all(
        isinstance(sentence, str) for sentence in sentences
      ):
        by_id[name] += sentences
      else:
        problems['not a list of captions'].append(f'{path.name}: {name}')
    return
  for field in ('videos', 'sentences'):
    if not isinstance(content.get(field, []), list):
      raise ValueError(f'{path}: `{field}` is not a list')
  for i, video in enumerate(content.get('videos', ())):
    try:
      name, split = _text(video, 'video_id'), _text(video, 'split')
    except (TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(
        f'{path.name}: videos[{i}]: {error}'
      )
      continue
    if split not in _NAMES:
      problems['unknown split'].append(f'{path.name}: {name}: {split!r}')
    elif name in split_by_id:
      problems['duplicate video'].append(f'{path.name}: {name}')
    else:
      split_by_id[name] = _NAMES[split]
  for i, sentence in enumerate(content['sentences']):
    try:
      name = _text(sentence, 'video_id')
      by_id[name].append(_text(sentence, 'caption').strip())
    except (TypeError, KeyError) as error:
      problems['no such field, or of another type'].append(
        f'{path.name}: sentences[{i}]: {error}'
      )


def _text(record: Any, field: str) -> str:
  """A field that is text. Raises a KeyError or a TypeError."""
  if not isinstance(record, dict):
    raise TypeError(f'{text_files.shown(record)} is no object')
  if not isinstance(record[field], str):
    raise TypeError(f'{field} is {text_files.shown(record[field])}, not text')
  return record[field]


def _read_descriptions(path, by_id, problems):
  for number, line in text_files.lines(path):
    if line.startswith('#'):
      continue
    name, space, caption = line.partition(' ')
    if space:
      by_id[name].append(caption)
    else:
      problems['not an id, a space and a caption'].append(
        f'line {number}: {line[:60]!r}'
      )


def _read_split_lists(directory, problems) -> dict[str, str]:
  split_by_id = {}
  for word, split in (
    ('train', 'train'),
    ('val', 'validation'),
    ('test', 'test'),
  ):
    found = directories.matching(directory, f'*{word}*.txt')
    if len(found) != 1:
      raise ValueError(
        f'{directory} must hold one file *{word}*.txt, not {len(found)}'
      )
    for _, name in text_files.lines(found[0]):
      if name in split_by_id:
        problems['id in more than one list'].append(f'{found[0].name}: {name}')
      else:
        split_by_id[name] = split
  return split_by_id


# Shared by the readers.


def check_directory(path: str | os.PathLike, what: str) -> pathlib.Path:
  """Returns the path of an existing directory.

  Raises:
    ValueError: there is no such directory; the message ends with `what`.
  """
  path = pathlib.Path(path)
  if not path.is_dir():
    raise ValueError(f'{path} is not a directory: pass that {what}')
  return path


def _sorted(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(directories.entries(directory), key=frames_lib.natural_order)


def folders(directory: pathlib.Path) -> list[pathlib.Path]:
  """The folders in a directory that are not hidden, in natural order."""
  return [path for path in _sorted(directory) if path.is_dir()]


def _is_clip(path: pathlib.Path) -> bool:
  suffix = path.suffix.lower()
  return path.is_dir() or suffix in (*frames_lib.VIDEOS, *frames_lib.ARRAYS)


def _finish(
  directory, candidates: Iterable[Clip], problems, skip_bad: bool
) -> tuple[list[Clip], str]:
  """Checks that each clip can be decoded and each group is in one split."""
  remaining, seen = [], set()
  for clip in candidates:
    if clip.id in seen:
      problems['duplicate clip'].append(clip.id)
    elif not clip.frames.exists():
      problems['missing file'].append(str(clip.frames))
    else:
      seen.add(clip.id)
      remaining.append(clip)
  errors = problems_lib.find(_decoding_error, remaining, unit='clips')
  problems['clip that cannot be decoded'] += filter(None, errors)
  clips = [clip for clip, e in zip(remaining, errors, strict=True) if e is None]
  splits = collections.defaultdict(set)
  for clip in clips:
    if clip.group:
      splits[clip.label, clip.group].add(clip.split)
  problems['group in more than one split'] += [
    f'{label}, {group}: {", ".join(sorted(found))}'
    for (label, group), found in splits.items()
    if len(found) > 1
  ]
  clips = [
    clip
    for clip in clips
    if not clip.group or len(splits[clip.label, clip.group]) == 1
  ]
  return clips, problems.raise_unless_skipped(
    directory, len(clips), skip_bad=skip_bad
  )


def _decoding_error(clip: Clip) -> str | None:
  try:
    if clip.frames.suffix.lower() in frames_lib.VIDEOS:
      for _ in frames_lib.stream(clip.frames):
        pass
    else:
      frames_lib.read(clip.frames)
  except (ValueError, OSError) as error:
    return str(error)
  return None
