// The result of a captioner: its best sentence, whose words show their
// attention, and the alternatives with their probabilities.

import {fit} from './attention.js';
import {place} from './attention.js';
import {showWeights} from './attention.js';
import {showWhole} from './attention.js';
import {say} from './notices.js';
import {pointAtTime} from './timeline.js';
import {showTimeline} from './timeline.js';
import {Words} from './words.js';

const HINT = 'Point at a word, or go to it with Tab and the arrow keys, to see ';
const HINTS = {
  places: `${HINT}where the model looked when it said it: the brighter, the ` +
    'more weight.',
  times: `${HINT}when the model looked as it said it: the taller a bar below ` +
    'the video, the more weight.',
};
const EVERYTHING = {x: 0, y: 0, width: 1, height: 1};

const room = document.getElementById('caption');
const canvas = room.querySelector('.photograph canvas');
const photograph = room.querySelector('.photograph img');
const words = new Words(room.querySelector('.sentence'), point);
let answer = null;

export function showResult(found) {
  answer = found;
  room.querySelector('.found').hidden = !found;
  room.querySelector('.waiting').hidden = Boolean(found);
  const attention = found?.attention;
  const hint = document.getElementById('attention-hint');
  hint.hidden = !attention;
  hint.textContent = attention?.times ? HINTS.times : HINTS.places;
  fit(canvas, photograph);
  showTimeline(attention?.times ? found : null);
  if (!found) return;
  words.say(found.captions[0]?.words ?? [], Boolean(found.attention));
  point(null);
  const most = Math.max(...found.captions.map((it) => it.probability), 1e-30);
  room.querySelector('.alternatives').replaceChildren(
    ...found.captions.map(({text, probability}) => {
      const item = document.createElement('li');
      const sentence = document.createElement('span');
      sentence.textContent = text || 'no words';
      const bar = document.createElement('span');
      bar.className = 'bar';
      bar.style.inlineSize = `${100 * probability / most}%`;
      const number = document.createElement('span');
      number.className = 'number';
      number.textContent = percent(probability);
      item.append(sentence, number, bar);
      return item;
    }));
}

function percent(probability) {
  const percents = 100 * probability;
  if (percents < 0.01) return '< 0.01 %';
  return `${Number(percents.toPrecision(2))} %`;
}

function point(i, who) {
  const {attention, shown = EVERYTHING} = answer;
  if (attention?.times) {
    pointAtTime(i, who);
    return;
  }
  const weights = i === null ? null : attention?.weights[i];
  if (!weights) {
    showWhole(canvas, shown);
    return;
  }
  showWeights(canvas, photograph, shown, attention, weights);
  if (who === 'keyboard') say(`Most weight in ${place(attention, weights)}`);
}
