// Recomputes an inclusion proof in this browser: leaf hash, path (RFC 9162 section 2.1.3.2), signed checkpoint (C2SP signed note).
// It uses only the bytes it fetched, WebCrypto, and the public key shown beside the result.

const encoder = new TextEncoder();
const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const short = (bytes) => `${hex(bytes).slice(0, 12)}…`;
const unbase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const same = (a, b) => a.length === b.length && a.every((byte, place) => byte === b[place]);

async function sha256(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return new Uint8Array(await crypto.subtle.digest("SHA-256", whole));
}

/** What a tree holds for a line: the line itself, or its digest when it is longer than a tile entry can be. */
async function leafData(line) {
  if (line.length <= 65535) return line;
  return encoder.encode(`tallystick.large/v1 ${line.length} ${hex(await sha256(line))}`);
}

export const leafHash = (data) => sha256(Uint8Array.of(0), data);
const nodeHash = (left, right) => sha256(Uint8Array.of(1), left, right);

const HEADER = "c2sp.org/tlog-proof@v1\n";

/** One tlog-proof, or two that follow each other: event to checkpoint, and on to the root log. */
export function parseChain(text) {
  if (!text.startsWith(HEADER)) throw new Error("the answer is no tlog-proof");
  return text.split(`\n${HEADER}`).map((part, place, all) => parseProof(part.slice(place ? 0 : HEADER.length) + (place < all.length - 1 ? "\n" : "")));
}

function parseProof(text) {
  const split = text.indexOf("\n\n");
  const lines = text.slice(0, split).split("\n");
  const extra = lines[0].startsWith("extra ") ? unbase64(lines.shift().slice(6)) : null;
  const index = /^index (0|[1-9]\d*)$/.exec(lines.shift());
  if (split < 0 || !index) throw new Error("the proof names no index");
  return { index: Number(index[1]), path: lines.map(unbase64), note: text.slice(split + 2), extra };
}

export function parseNote(note) {
  const split = note.lastIndexOf("\n\n");
  const text = note.slice(0, split + 1);
  const [origin, size, root] = text.split("\n");
  const signatures = note.slice(split + 2).split("\n").filter(Boolean).map((line) => {
    const [, name, blob] = /^\u2014 (\S+) (\S+)$/.exec(line) ?? [];
    if (!name) throw new Error("a signature line of the checkpoint cannot be read");
    return { name, blob: unbase64(blob) };
  });
  return { text, origin, size: Number(size), root: unbase64(root), signatures };
}

/** Steps from the leaf to the root: each says on which side the given sibling stands. Throws when the path has a wrong length. */
export async function climb(leaf, index, size, path) {
  if (index >= size) throw new Error("the index lies outside the tree");
  let [node, last, hash] = [BigInt(index), BigInt(size) - 1n, leaf];
  const steps = [];
  for (const sibling of path) {
    if (last === 0n) throw new Error("the path is too long");
    const isLeft = (node & 1n) === 1n || node === last;
    hash = isLeft ? await nodeHash(sibling, hash) : await nodeHash(hash, sibling);
    steps.push({ sibling, isLeft, hash });
    if (isLeft) while ((node & 1n) === 0n && node !== 0n) { node >>= 1n; last >>= 1n; }
    node >>= 1n;
    last >>= 1n;
  }
  if (last !== 0n) throw new Error("the path is too short");
  return { root: hash, steps };
}

/** true, false, or null when this browser cannot check Ed25519. */
export async function checkSignature(note, vkey) {
  const [name, id, data] = splitVkey(vkey);
  if (note.origin !== name) throw new Error("the checkpoint is of another log");
  const signature = note.signatures.find((item) => item.name === name && hex(item.blob.slice(0, 4)) === id);
  if (!signature) return false;
  try {
    const key = await crypto.subtle.importKey("raw", data.slice(1), { name: "Ed25519" }, false, ["verify"]);
    return await crypto.subtle.verify({ name: "Ed25519" }, key, signature.blob.slice(4), encoder.encode(note.text));
  } catch (error) {
    if (error.name === "NotSupportedError") return null;
    throw error;
  }
}

function splitVkey(vkey) {
  const [, name, id, data] = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(vkey) ?? [];
  if (!name) throw new Error("the public key cannot be read");
  return [name, id, unbase64(data)];
}

// --- showing it -------------------------------------------------------------------------------------------------------
function addStep(box, isGood, text) {
  const item = document.createElement("li");
  item.className = isGood === null ? "" : isGood ? "good" : "bad";
  item.textContent = text;
  box.querySelector(".steps").append(item);
}

function verdict(box, kind, text) {
  const node = box.querySelector(".verdict");
  node.className = `verdict ${kind}`;
  node.textContent = text;
}

function draw(box, leaf, steps, isGood) {
  const space = "http://www.w3.org/2000/svg";
  const make = (name, attributes, text) => {
    const node = document.createElementNS(space, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    svg.append(node);
  };
  const height = 24 * (steps.length + 1) + 8;
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("class", `path-drawing ${isGood ? "good" : ""}`);
  svg.setAttribute("viewBox", `0 0 400 ${height}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Path of ${steps.length} hashes from the leaf to the root`);
  const row = (level) => height - 16 - 24 * level;
  steps.forEach((step, level) => {
    const x = step.isLeft ? 100 : 300;
    make("line", { x1: 200, y1: row(level), x2: 200, y2: row(level + 1) });
    make("line", { x1: x, y1: row(level), x2: 200, y2: row(level + 1) });
    make("circle", { cx: x, cy: row(level), r: 4, class: "given" });
    make("text", { x: step.isLeft ? 8 : 310, y: row(level) + 4 }, short(step.sibling).slice(0, 11));
  });
  [leaf, ...steps.map((step) => step.hash)].forEach((hash, level) => {
    const name = level === 0 ? "leaf" : level === steps.length ? "root" : "";
    make("circle", { cx: 200, cy: row(level), r: 4.5, class: "made" });
    if (name) make("text", { x: 210, y: row(level) - (level ? 6 : -4) }, `${name} ${short(hash)}`);
  });
  box.querySelector(".drawing").replaceChildren(svg);
}

async function fetchProof(url) {
  const chained = await fetch(`${url}&chain=true`);
  return chained.status === 503 ? fetch(url) : chained; // a fresh event reaches the root log a little later
}

/** From a leaf to a checkpoint and its signature; true, false, or null when the signature cannot be checked here. */
async function checkLevel(box, leaf, proof, vkey, name) {
  const note = parseNote(proof.note);
  const { root, steps } = await climb(leaf, proof.index, note.size, proof.path);
  const isRoot = same(root, note.root);
  addStep(box, isRoot, `${name}: ${steps.length} hashes lead from leaf ${proof.index} of ${note.size} to ${isRoot ? "the checkpoint's root" : "another root than the checkpoint's"}`);
  const isSigned = await checkSignature(note, vkey);
  if (isSigned === null) addStep(box, null, "This browser has no Ed25519; check the signature with `tallystick verify`");
  else addStep(box, isSigned, `The checkpoint is ${isSigned ? "" : "not "}signed by the ${name.toLowerCase()}'s key below`);
  return { steps, isGood: isRoot && isSigned };
}

async function checkProof(box) {
  const [lineAnswer, proofAnswer] = await Promise.all([fetch(box.dataset.line), fetchProof(box.dataset.proofUrl)]);
  if (proofAnswer.status === 503) return verdict(box, "", "The event is on disk but not sealed yet; that takes a moment. Open this tab again.");
  if (!lineAnswer.ok || !proofAnswer.ok) throw new Error(`the server answered ${lineAnswer.status} and ${proofAnswer.status}`);
  const line = new Uint8Array(await lineAnswer.arrayBuffer());
  const [proof, rootProof] = parseChain(await proofAnswer.text());
  const leaf = await leafHash(await leafData(line));
  addStep(box, null, `Leaf: SHA-256 over the ${line.length} bytes of the line is ${short(leaf)}`);
  const first = await checkLevel(box, leaf, proof, box.dataset.vkey, "Log");
  draw(box, leaf, first.steps, first.isGood === true);
  const results = [first.isGood];
  if (rootProof) {
    const isQuoted = JSON.parse(new TextDecoder().decode(rootProof.extra)).note === proof.note;
    addStep(box, isQuoted, `The root log's entry ${rootProof.index} quotes ${isQuoted ? "this" : "another"} checkpoint`);
    results.push(isQuoted, (await checkLevel(box, await leafHash(rootProof.extra), rootProof, box.dataset.rootVkey, "Root log")).isGood);
  } else addStep(box, null, "The root log quotes this checkpoint in a few seconds; open this tab again to see it");
  if (results.includes(false)) return verdict(box, "bad", "This event does not lead to the signed checkpoint. Keep what you see and ask who runs this server.");
  if (results.includes(null)) return verdict(box, "", "The path holds; the signatures could not be checked in this browser.");
  verdict(box, "good", `✓ Recomputed in this browser just now: the event is in the signed log${rootProof ? ", and that in the root log" : ""}.`);
}

export async function checkProofs(root) {
  for (const box of root.querySelectorAll("[data-proof]")) {
    if (!globalThis.crypto?.subtle) {
      verdict(box, "", "This page was opened without TLS off loopback, where browsers give no WebCrypto; use `tallystick verify`.");
      continue;
    }
    verdict(box, "", "Recomputing…");
    try {
      await checkProof(box);
    } catch (error) {
      verdict(box, "bad", `Could not recompute the proof: ${error.message}`);
    }
  }
}
