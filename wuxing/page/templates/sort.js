"use strict";
// A click on a heading sorts the rows: numbers by their value, words by the reader's language.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const words = new Intl.Collator(document.documentElement.lang, { numeric: true });
  table.tHead.querySelectorAll("th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("number");
      const before = heading.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numeric;
      for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort;
      const rows = [...body.rows].sort((a, b) => {
        const left = key(a), right = key(b);
        const order = left !== undefined && right !== undefined
          ? left - right
          : words.compare(a.cells[column].textContent, b.cells[column].textContent);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
