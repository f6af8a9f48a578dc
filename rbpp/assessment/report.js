// Sorts tables, filters rows, and saves the marks as the sheet that `rbpp assess --marks` reads.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    const value = (row) => row.cells[column].textContent.trim();
    const number = (text) => parseFloat(text.replaceAll(",", "").replace("–", "-Infinity"));
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const numeric = head.classList.contains("number");
      const rows = [...body.rows].sort((one, two) => {
        const order = numeric
          ? (number(value(two)) || -Infinity) - (number(value(one)) || -Infinity) || 0
          : value(two).localeCompare(value(one));
        return down ? order : -order;
      });
      body.append(...rows);
      table.dispatchEvent(new Event("sorted"));
    });
  });
}

const rows = document.getElementById("rows");
if (rows) {
  const field = (name) => document.getElementById(name);
  const step = 50;
  let most = step;
  const filter = () => {
    const words = field("search").value.toLowerCase(), kind = field("kind").value;
    const source = field("source").value;
    let found = 0;
    for (const row of rows.tBodies[0].rows) {
      const fits =
        (!kind || row.dataset.kind.split(" ").includes(kind)) &&
        (!source || row.dataset.source === source) &&
        (!words || row.textContent.toLowerCase().includes(words));
      found += fits;
      row.hidden = !fits || found > most;
    }
    const shown = Math.min(found, most);
    field("shown").textContent = shown < found ? `${shown} of ${found} rows` : `${found} rows`;
    field("more").hidden = shown === found;
  };
  const again = () => { most = step; filter(); };
  for (const name of ["search", "kind", "source"]) field(name).addEventListener("input", again);
  field("search").form.addEventListener("submit", (event) => event.preventDefault());
  rows.addEventListener("sorted", filter);
  field("more").addEventListener("click", () => { most += step; filter(); });
  filter();
}

document.getElementById("save")?.addEventListener("click", () => {
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
