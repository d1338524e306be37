// Tables whose headings are buttons sort by the column of the button that is pressed.
document.addEventListener('click', event => {
  const head = event.target.closest('.rows thead th button')?.parentElement
  if (!head) return
  const falls = head.getAttribute('aria-sort') === 'ascending', column = head.cellIndex
  for (const other of head.parentElement.cells) other.removeAttribute('aria-sort')
  head.setAttribute('aria-sort', falls ? 'descending' : 'ascending')
  const value = cell => cell.dataset.value === undefined
    ? cell.textContent.toLowerCase() || -Infinity
    : Number(cell.dataset.value)
  const order = (a, b) => typeof a === typeof b ? (a < b ? -1 : Number(a > b)) : typeof a === 'number' ? -1 : 1
  const body = head.closest('table').tBodies[0]
  body.append(...[...body.rows].sort(
    (one, other) => order(value(one.cells[column]), value(other.cells[column])) * (falls ? -1 : 1)))
})
