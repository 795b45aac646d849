(() => {
  "use strict";
  // Tables: sort by a heading, filter by words.
  for (const table of document.querySelectorAll("table")) {
    const body = table.tBodies[0];
    if (body.rows.length < 3) continue;
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => {
          const text = row.cells[column].dataset.sort ?? row.cells[column].textContent;
          const number = Number(text.replaceAll(",", ""));
          return text === "" || Number.isNaN(number) ? text : number;
        };
        const compare = (a, b) => {
          const x = value(a), y = value(b);
          if (typeof x === "number" && typeof y === "number") return (x > y) - (x < y);
          if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
          return x.localeCompare(y, "en", { numeric: true });
        };
        body.append(...[...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b))));
      });
    });
    if (body.rows.length < 12) continue;
    const label = document.createElement("label");
    label.className = "filter";
    label.textContent = "Filter rows";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "words, such as: mamba forward";
    label.append(input);
    table.parentElement.before(label);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of body.rows) {
        const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
    });
  }
  // Points of a figure and cells of a table say more on hover and on focus.
  const tip = document.getElementById("tip");
  for (const title of document.querySelectorAll(".point > title")) {
    const point = title.parentElement;
    point.dataset.tip = title.textContent;
    point.setAttribute("aria-label", title.textContent);
    title.remove(); // else the browser shows it a second time
  }
  for (const cell of document.querySelectorAll("td[data-tip], th[data-tip]")) cell.tabIndex = 0;
  const show = (event) => {
    const target = event.target.closest("[data-tip]");
    if (!target) return;
    tip.textContent = target.dataset.tip;
    tip.hidden = false;
    const box = target.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    const above = box.top - tip.offsetHeight - 8;
    tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("mouseout", hide);
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
})();
