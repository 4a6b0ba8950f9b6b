// Items as CSV (RFC 4180), and a file of it for the user.

/** One cell. A spreadsheet would run a text that starts like a formula, so such a text gets a quote first. */
export function cell(value) {
  if (value === null || value === undefined) return "";
  const formula = typeof value === "string" && /^[=+\-@\t\r]/.test(value) && !Number.isFinite(Number(value));
  const text = formula ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Records with the user's columns. */
export function csv(records, columns) {
  const names = columns.map((one) => one.name);
  const rows = records.map((r) => [r.key, r.modality, r.item, r.text, r.score, r.percentile,
    ...names.map((name) => r.columns?.[name])]);
  const head = ["key", "modality", "item", "text", "score", "percentile", ...names];
  return [head, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

/** Lets the browser save a text as a file. */
export function save(text, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv" }));
  link.download = name.replaceAll(/[\\/:*?"<>|]+/g, "-");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
