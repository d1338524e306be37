// The page of kit clean and kit label: it shows one card and sends decisions; all that lasts is on the server.
const $ = id => document.getElementById(id)
const COLOURS = ['#0f766e', '#d97706', '#7c3aed', '#dc2626', '#2563eb', '#65a30d', '#db2777', '#0891b2', '#a16207', '#64748b']
let state, cards = new Map(), order = [], place = 0, card = null, busy = false, since = 0

async function ask(path, body) {
  let answer
  try {
    answer = await fetch(`clean/${path}`, body === undefined ? {} : {
      method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify({version: state?.version, ...body})})
  } catch {
    throw new Error('The server does not answer. Start the same command again: no decision is lost.')
  }
  const value = await answer.json()
  if (answer.status >= 300) throw Object.assign(new Error(`${value.error}; ${value.fix ?? ''}`), {status: answer.status})
  return answer.status === 202 ? null : value
}

const say = (text, trouble = false) => {
  $('message').textContent = text
  $('message').className = trouble ? 'trouble' : ''
}

async function guarded(work) {
  if (busy) return
  busy = true
  document.body.ariaBusy = 'true'
  try { await work() } catch (error) {
    say(error.message, true)
    if (error.status === 409) await load('state', undefined, card?.row).catch(() => {})
  } finally {
    busy = false
    document.body.ariaBusy = 'false'
  }
}

const element = (name, text = '', attributes = {}) =>
  Object.assign(document.createElement(name), {textContent: text}, attributes)

function fill(select, entries) {
  const chosen = select.value
  select.replaceChildren(...entries.map(([value, text]) => element('option', text, {value})))
  if (entries.some(([value]) => value === chosen)) select.value = chosen
}

const image = (row, side) => `clean/image/${row}?side=${side}&v=${state.version}`
const classesOf = label => state.task === 'multilabel' ? label.split(';').filter(Boolean) : [label]

async function load(path = 'state', body, row) {
  state = await ask(path, body)
  cards = new Map(state.cards.map(one => [one.row, one]))
  document.title = `${state.folder} – kit ${state.mode}`
  $('title').textContent = state.mode === 'label' ? `Label ${state.folder}` : `Clean ${state.folder}`
  const counts = {}
  for (const one of state.cards) for (const kind of one.kinds) counts[kind] = (counts[kind] ?? 0) + 1
  const labelling = state.mode === 'label'
  for (const id of ['class-filter', 'effect-button', 'keep']) $(id).hidden = labelling
  fill($('kind'), [['', `${labelling ? 'all images' : 'all findings'} (${state.cards.length})`],
    ...Object.entries(state.kinds).filter(([kind]) => counts[kind]).map(([kind, text]) => [kind, `${text} (${counts[kind]})`])])
  fill($('class'), [['', 'all'], ...state.classes.map(name => [name, name])])
  if (!state.classes.length) $('class-filter').hidden = true
  $('broken-part').hidden = !state.broken.length
  $('broken').replaceChildren(...state.broken.slice(0, 100).map(one => element('li', `${one.path}: ${one.reason}`)))
  progress(state)
  return arrange(row)
}

function progress({decided, says}) {
  state.decided = decided
  const of = state.mode === 'label' ? state.images : state.cards.length
  const done = state.mode === 'label' ? decided : state.cards.filter(one => one.done).length
  $('bar').max = of || 1
  $('bar').value = done
  $('count').textContent = state.mode === 'label' ? `${done} of ${of} labelled` : `${done} of ${of} looked at`
  $('subtitle').textContent = [`${state.images} images`, `decisions are saved in ${state.csv}`, says].filter(Boolean).join('; ')
}

// The cards that the filters let through, in the server's order: the most likely findings first.
function arrange(row) {
  narrow(row)
  return order.length ? show(order[place]) : nothing()
}

function narrow(row, otherwise = 0) {
  const kind = $('kind').value, name = $('class').value
  order = state.cards.filter(one => (!kind || one.kinds.includes(kind)) && (!name || classesOf(one.label).includes(name))
    && (!$('open').checked || !one.done || one.row === row)).map(one => one.row)
  place = order.includes(row) ? order.indexOf(row) : otherwise
}

function nothing() {
  card = null
  $('card').hidden = true
  $('empty').hidden = false
  const any = state.cards.length
  $('empty-title').textContent = any ? 'Nothing is left to look at here' : 'Nothing was found'
  $('empty-text').textContent = any
    ? `Look again with the new labels, choose other findings above, or stop here: ${state.csv} is ready for kit fine-tune --labels.`
    : 'No label looks wrong, no image is a copy of another, and none is unlike the others.'
}

async function show(row) {
  card = await ask(`card/${row}`)
  $('card').hidden = false
  $('empty').hidden = true
  $('photo').src = image(row, 1024)
  $('photo').alt = card.name
  $('caption').textContent = `${card.name}, ${card.size.join(' x ')} pixels${card.split ? `, ${card.split}` : ''}`
  const line = $('label-line')
  line.replaceChildren(card.label || card.old_label ? 'labelled ' : 'no label yet', element('b', card.label))
  if (card.label !== card.old_label && card.old_label) line.append(' ', element('span', `(was ${card.old_label})`, {className: 'was'}))
  if (card.action) line.append(' ', element('span', {keep: 'kept', drop: 'dropped', label: 'set by you'}[card.action], {className: 'was'}))
  const findings = card.findings.map(one => {
    const item = element('li')
    item.append(element('strong', one.text), one.reason)
    return item
  })
  const kinds = cards.get(row)?.kinds ?? []
  if (kinds.includes('audit')) {
    const item = element('li')
    item.append(element('strong', state.kinds.audit), 'is its label right?')
    findings.push(item)
  }
  $('findings').replaceChildren(...findings)
  choices()
  similar(card.findings.flatMap(one => one.similar), 'The images most like it')
  const after = order[place + 1]
  if (after !== undefined) new Image().src = image(after, 1024)
}

const suggestion = () => card?.findings.find(one => one.suggestion)?.suggestion

// The suggested class first, so that key 1 accepts it; the others in alphabetical order.
function ordered() {
  const wanted = suggestion()
  const names = wanted && state.task !== 'multilabel' && (state.task === 'regression' || state.classes.includes(wanted))
    ? [wanted, ...state.classes.filter(name => name !== wanted)] : [...state.classes]
  return names
}

function choices() {
  const own = classesOf(card.label), focused = $('classes').contains(document.activeElement) && document.activeElement.value
  $('known').replaceChildren(...state.classes.map(value => element('option', '', {value})))
  $('classes').replaceChildren(...ordered().map((name, number) => {
    const button = element('button', '', {type: 'button', value: name})
    if (number < 9) button.append(element('kbd', number + 1), ' ')
    button.append(name)
    button.setAttribute('aria-pressed', String(own.includes(name)))
    if (classesOf(suggestion() ?? '').includes(name) && !own.includes(name)) button.classList.add('suggested')
    button.addEventListener('click', () => choose(name))
    return button
  }))
  if (focused) [...$('classes').children].find(one => one.value === focused)?.focus()
}

function similar(images, title) {
  const unique = [...new Map(images.map(one => [one.row, one])).values()]
  $('similar-part').hidden = !unique.length
  $('similar-title').textContent = title
  $('similar').replaceChildren(...unique.map(one => {
    const item = element('li'), button = element('button', '', {type: 'button'})
    button.append(element('img', '', {src: image(one.row, 192), alt: '', loading: 'lazy'}), one.label || one.name)
    button.ariaLabel = `Open ${one.name}, ${one.label || 'no label'}`
    button.addEventListener('click', () => guarded(() => show(one.row)))
    item.append(button)
    return item
  }))
}

// With several classes an image, a key switches one class; else it sets the label.
function choose(name) {
  if (state.task !== 'multilabel') return decide('label', name)
  const own = new Set(classesOf(card.label))
  own.has(name) ? own.delete(name) : own.add(name)
  return decide('label', [...own].sort().join(';'), true)
}

const decide = (action, label = '', stay = false) => guarded(async () => {
  if (!card) return
  const {row} = card
  if (action === 'keep' && card.action === 'label') {
    say(`${card.name}: stays ${card.label || 'without a class'}`)
    return step(1)
  }
  const reason = card.findings.map(one => `${one.text}: ${one.reason}`).join('; ')
  const kept = action === 'label' && label === card.old_label && !stay
  const answer = await ask('decide', {row, action: kept ? 'keep' : action, label: kept ? '' : label, reason, seen: card.seen})
  const entry = cards.get(row)
  if (entry) Object.assign(entry, {done: answer.done, label: answer.label})
  say(`${card.name}: ${kept || action === 'keep' ? `stays ${answer.label}` : action === 'drop' ? 'dropped' : `is now ${answer.label || 'without a class'}`}`)
  if (!state.classes.includes(label) && action === 'label' && state.task === 'classification') state.classes = [...state.classes, label].sort()
  progress(answer)
  if (stay) return show(row)
  if (state.mode === 'label' && ++since >= 10) { since = 0; return load('again', {}) }
  return step(1)
})

async function undo() {
  const {row, ...rest} = await ask('undo', {})
  if (row === null) return say('There is nothing to undo.')
  const entry = cards.get(row)
  await show(row)
  if (entry) Object.assign(entry, {done: card.action !== null, label: card.label})
  progress(rest)
  narrow(row, place)
  say(`${card.name}: the last decision is undone`)
}

// An image that is not in the order was opened from the map or from similar ones: go back to the card before it.
function step(by) {
  const before = order[place]
  if ($('open').checked) order = order.filter(row => !cards.get(row).done || row === card?.row || row === before)
  const next = order.includes(card?.row) ? order.indexOf(card.row) + by : order.indexOf(before)
  if (next >= 0 && next < order.length) { place = next; return show(order[place]) }
  if (by > 0) return arrange()
}

const again = () => guarded(async () => {
  $('again').disabled = true
  say('Looking again ...')
  try { await load('again', {}) } finally { $('again').disabled = false }
  say(`Looked again in ${state.seconds} s, with the labels as they are now.`)
})

async function more() {
  if (card) similar(await ask(`like/${card.row}`), 'More like this')
  $('similar-part').scrollIntoView({block: 'nearest'})
}

// ---- the map
let dots = null
async function drawMap() {
  const shown = $('map-part').hidden
  $('map-part').hidden = !shown
  $('map-button').setAttribute('aria-expanded', String(shown))
  if (!shown) return
  dots = await ask('map')
  if (!dots) { $('map-part').hidden = true; return say('The map is still being computed; try again in a moment.') }
  paint()
}

function spot([x, y]) {
  const {width, height} = $('map')
  return [20 + x * (width - 40), 20 + y * (height - 40)]
}

function paint() {
  const pen = $('map').getContext('2d'), names = [...new Set(dots.labels)].sort()
  const found = new Set(state.cards.filter(one => !one.done && one.kinds.some(kind => kind !== 'audit' && kind !== 'decided')).map(one => one.row))
  const colour = name => COLOURS[names.indexOf(name) % COLOURS.length]
  pen.clearRect(0, 0, $('map').width, $('map').height)
  dots.xy.forEach((xy, row) => {
    const [x, y] = spot(xy)
    pen.beginPath()
    pen.arc(x, y, dots.xy.length > 3000 ? 2 : 5, 0, 7)
    pen.fillStyle = colour(dots.labels[row])
    pen.globalAlpha = 0.8
    pen.fill()
    if (found.has(row)) {
      pen.globalAlpha = 1
      pen.lineWidth = 2
      pen.strokeStyle = getComputedStyle(document.body).color
      pen.stroke()
    }
  })
  pen.globalAlpha = 1
  const shown = names.slice(0, COLOURS.length)
  $('legend').replaceChildren(...shown.map(name => {
    const item = element('li')
    item.append(element('i', '', {style: `background: ${colour(name)}`}), name || 'no label')
    return item
  }), ...(names.length > shown.length ? [element('li', `and ${names.length - shown.length} more classes in the same colours`)] : []),
  element('li', 'outlined: findings that are not decided'))
}

function under(event) {
  if (!dots) return null
  const box = $('map').getBoundingClientRect(), scale = $('map').width / box.width
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale
  let best = null, least = 14 ** 2
  dots.xy.forEach((xy, row) => {
    const [a, b] = spot(xy), far = (a - x) ** 2 + (b - y) ** 2
    if (far < least) { least = far; best = row }
  })
  return best
}

$('map').addEventListener('mousemove', event => {
  const row = under(event), tip = $('hover')
  tip.hidden = row === null
  if (row === null) return
  const box = $('map').getBoundingClientRect()
  tip.style.left = `${Math.min(event.clientX - box.left + 12, box.width - 140)}px`
  tip.style.top = `${event.clientY - box.top + 12}px`
  const address = image(row, 192)
  if (!tip.firstChild.src.endsWith(address)) tip.firstChild.src = address
  tip.lastChild.textContent = dots.labels[row]
})
$('map').addEventListener('mouseleave', () => { $('hover').hidden = true })
$('map').addEventListener('click', event => {
  const row = under(event)
  if (row !== null) guarded(async () => { await show(row); $('card').scrollIntoView({block: 'nearest'}) })
})

// ---- keys and buttons
const move = by => guarded(() => { say(''); return step(by) })
const KEYS = {
  k: () => decide('keep'), d: () => decide('drop'), u: () => guarded(undo), f: () => guarded(more),
  ArrowRight: () => move(1), ArrowLeft: () => move(-1),
}
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input:not([type=checkbox]), select, textarea')) return
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key
  if (event.repeat && !key.startsWith('Arrow')) return
  const name = /^[1-9]$/.test(key) && card ? ordered()[key - 1] : undefined
  if (name !== undefined) choose(name)
  else if (KEYS[key] && (card || key === 'u') && !(key === 'k' && $('keep').hidden)) KEYS[key]()
  else return
  event.preventDefault()
})
for (const [id, key] of [['keep', 'k'], ['drop', 'd'], ['undo', 'u'], ['like', 'f'], ['next', 'ArrowRight'], ['previous', 'ArrowLeft']])
  $(id).addEventListener('click', () => KEYS[key]())
$('other').addEventListener('submit', event => {
  event.preventDefault()
  const name = $('new-label').value.trim()
  $('new-label').value = ''
  $('new-label').blur()
  if (name) state.task === 'multilabel' ? choose(name) : decide('label', name)
})
$('again').addEventListener('click', again)
$('map-button').addEventListener('click', () => guarded(drawMap))
$('effect-button').addEventListener('click', () => guarded(async () => {
  say('Measuring ...')
  say((await ask('effect')).lines.join('\n'))
}))
for (const id of ['kind', 'class', 'open']) $(id).addEventListener('change', () => guarded(() => arrange(card?.row)))
$('photo').addEventListener('error', () => say(`${card.name} cannot be shown: was it moved or changed?`, true))
guarded(() => load())
