// The text encoder in the browser: a tokenizer and an ONNX network. Loaded with the first words.

import { bytes, json } from "./files.js";

const RUNTIME = new URL("../runtime/", import.meta.url);
const encoders = new Map();

/** {vector, shift} of a text: its unit-norm embedding, and what it adds to scores for each target. */
export async function encoded(info, modality, text) {
  if (!encoders.has(modality)) {
    const loading = load(info, modality);
    encoders.set(modality, loading);
    loading.catch(() => encoders.delete(modality));
  }
  const { tokens, session, ort } = await encoders.get(modality);
  const ids = tokens(text), shape = [1, ids.length];
  const values = { input_ids: ids, attention_mask: ids.map(() => 1), token_type_ids: ids.map(() => 0) };
  const inputs = info.words[modality].inputs.map((name) => [name, new ort.Tensor("int64", BigInt64Array.from(values[name], BigInt), shape)]);
  const { vector, shift } = await session.run(Object.fromEntries(inputs));
  return { vector: vector.data, shift: shift.data };
}

async function load(info, modality) {
  const [ort, { Tokenizer }, table, network] = await Promise.all([
    import("../runtime/ort.js"), import("../runtime/tokenizers.js"),
    json(`${modality}/tokenizer.json`), bytes(`${modality}/model.onnx`, info),
  ]);
  ort.env.wasm.numThreads = 1;  // several need headers that a static host doesn't send
  ort.env.wasm.wasmPaths = { mjs: new URL("ort-wasm.js", RUNTIME).href, wasm: new URL("ort-wasm.wasm", RUNTIME).href };
  const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
  return { ort, session, tokens: cut(new Tokenizer(table, {}), info.words[modality]) };
}

/** Token ids of a text, at most `max_tokens`: those that mark its start and end stay. */
function cut(tokenizer, { prompt, max_tokens: most }) {
  const marks = tokenizer.encode("").ids;
  return (text) => {
    const { ids } = tokenizer.encode(prompt + text.normalize("NFC").trim());
    if (!most || ids.length <= most) return ids;
    const start = marks.findIndex((id, i) => id !== ids[i]), before = start < 0 ? marks.length : start;
    const after = marks.slice(before);
    return [...ids.slice(0, most - after.length), ...after];
  };
}
