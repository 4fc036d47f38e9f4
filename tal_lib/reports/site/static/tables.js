/* Sorts a table by the column whose heading is clicked. Numbers are compared by their first number. */
"use strict";
window.TAL_TABLES = (() => {
  const value = (text) => {
    const number = text.replaceAll(",", "").match(/^[<>≤≈\s]*([-+−]?\d+(\.\d+)?)/);
    return number ? Number(number[1].replace("−", "-")) : null;
  };

  const compare = (first, second) => {
    const [a, b] = [value(first), value(second)];
    if (a !== null && b !== null) return a - b;
    if (a !== null || b !== null) return a === null ? 1 : -1;
    return first.localeCompare(second);
  };

  const sort = (table, column, descending) => {
    const text = (row) => row.cells[column] ? row.cells[column].textContent.trim() : "";
    const empty = (row) => ["", "–", "nan", "NaN"].includes(text(row));
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const filled = rows.filter((row) => !empty(row)).sort((a, b) => compare(text(a), text(b)));
    if (descending) filled.reverse();
    body.append(...filled, ...rows.filter(empty));
    [...table.tHead.rows[0].cells].forEach((cell, number) => {
      cell.setAttribute("aria-sort", number !== column ? "none" : descending ? "descending" : "ascending");
    });
  };

  const makeSortable = (table) => {
    if (!table.tHead || table.tHead.rows.length !== 1 || !table.tBodies.length) return;
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      cell.tabIndex = 0;
      const act = () => sort(table, column, cell.getAttribute("aria-sort") === "ascending");
      cell.addEventListener("click", act);
      cell.addEventListener("keydown", (event) => {
        if (event.key === "Enter") act();
      });
    });
  };

  document.querySelectorAll("table.tal-table").forEach(makeSortable);
  return { compare };
})();
