// Saves the marks as the sheet that `rbpp assess --marks` reads.
document.getElementById("save").addEventListener("click", () => {
  const sheet = document.getElementById("sheet");
  const safe = (text) => (/^[=+\-@]/.test(text) ? "'" + text : text);
  const cell = (text) => '"' + String(text).replaceAll('"', '""') + '"';
  const lines = [["row", "id", "text", "off_task", "digest"]];
  for (const line of sheet.querySelectorAll("tr[data-row]")) {
    const { row, id, text } = line.dataset;
    lines.push([row, safe(id), safe(text), line.querySelector("select").value, sheet.dataset.digest]);
  }
  const content = "\ufeff" + lines.map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
  link.download = "marks.csv";
  link.click();
});
