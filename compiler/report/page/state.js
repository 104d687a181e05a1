"use strict";
// The data of the page, what is chosen, and how numbers look.

const data = JSON.parse(document.getElementById("data").textContent);
const column = Object.fromEntries(data.columns.map((name, index) => [name, index]));
const rowOf = new Map(data.rows.map((row, index) => [row[column.name], index]));
const chosen = { row: null, listeners: [] };

function choose(row) {
  chosen.row = row;
  for (const listener of chosen.listeners) listener(row);
}

function cell(row, name) {
  return data.rows[row][column[name]];
}

function element(tag, attributes = {}, text = null) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

const EXACT = 200;

function shown(name, value) {
  if (value === null || value === "") return "";
  if (typeof value === "string") return value;
  if (name === "outside") return value === 0 ? "0" : `${(100 * value).toPrecision(2)} %`;
  if (name === "sqnr" || name === "own") return value >= EXACT ? "exact" : value.toFixed(1);
  if (name === "cos") return value.toFixed(5);
  return String(value);
}

function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// Red for 0 dB and below, yellow about 20 dB, green from 40 dB on.
function sqnrColour(value) {
  if (value === null) return "#9aa3b2";
  const share = Math.max(0, Math.min(1, value / 40));
  return `hsl(${Math.round(130 * share)} 60% 62%)`;
}

function timeColour(share) {
  return `hsl(${Math.round(215 - 195 * Math.min(1, share))} 65% 65%)`;
}

function precisionColour(name) {
  if (!name) return "#9aa3b2";
  return /^[ui]\d/.test(name) ? "#7fc28a" : "#e3a857";
}
