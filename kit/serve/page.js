// The page in the browser: sends photos, and shows for each its answer or what failed. Each photo is one upload and one
// call of a function of webpage.py; a newer photo cancels what an older one waits for.
(() => {
  const find = selector => document.querySelector(selector)
  const shown = selector => [...document.querySelectorAll(selector)].find(one => one.offsetParent)
  const make = (name, properties, ...children) => {
    const one = Object.assign(document.createElement(name), properties)
    one.append(...children)
    return one
  }
  const session = Math.random().toString(36).slice(2)
  const UPLOAD_SECONDS = 120, ANSWER_SECONDS = 60

  // An error in words, and what to press: again (the same once more) or reload (a page that the server does not know).
  class Trouble extends Error {
    constructor(text, press = '') {
      super(text)
      this.press = press
    }
  }
  const refused = async response => {
    const said = await response.json().catch(() => ({}))
    const text = said.error && `${said.error}${said.fix ? `; ${said.fix}` : ''}`
    if (response.status === 401) return new Trouble('You are signed out. Sign in again.', 'reload')
    if (response.status === 404) return new Trouble('This page is older than the server. Reload it.', 'reload')
    if (response.status === 503) return new Trouble(`The server is full: ${text ?? 'try again in a moment'}`, 'again')
    if (response.status === 413) return new Trouble(text ?? 'The file is larger than the server takes.')
    if (response.status > 500)
      return new Trouble(text ?? `The server does not answer (${response.status}). Try again in a moment.`, 'again')
    return new Trouble(text ?? `The server refused it (${response.status}).`)
  }
  const post = async (path, body, seconds, stop) => {
    const end = new AbortController(), timer = setTimeout(() => end.abort(), 1000 * seconds), {signal} = end
    const headers = typeof body === 'string' ? {'content-type': 'application/json'} : {}
    stop.addEventListener('abort', () => end.abort())
    try {
      const response = await fetch(new URL(path, document.baseURI), {method: 'POST', body, headers, signal})
      if (!response.ok) throw await refused(response)
      return await response.json()
    } catch (error) {
      if (error instanceof Trouble || stop.aborted) throw error
      if (signal.aborted)
        throw new Trouble(`No answer after ${seconds} seconds: the server is busy, or the connection slow.`, 'again')
      throw new Trouble('The server does not answer. It may have been stopped, or the connection is lost.', 'again')
    } finally {
      clearTimeout(timer)
    }
  }
  const upload = async (file, limit, stop) => {
    if (file.size > limit) throw new Trouble(`${size(file.size)} is too large: this page takes up to ${size(limit)}.`)
    const form = new FormData()
    form.append('files', file, file.name || 'photo.png')
    const [path] = await post('gradio_api/upload', form, UPLOAD_SECONDS, stop)
    return {path, meta: {_type: 'gradio.FileData'}}
  }
  const call = async (name, data, stop) => {
    const {id} = window.gradio_config.dependencies.find(one => one.api_name === name)
    const body = JSON.stringify({fn_index: id, session_hash: session, data})
    return (await post('gradio_api/run/predict', body, ANSWER_SECONDS, stop)).data[0]
  }
  const size = bytes => `${(bytes / 1e6).toPrecision(3).replace(/\.?0+$/, '')} MB`
  const told = (error, again) => {
    const box = make('div', {className: 'trouble', role: 'alert'},
      make('strong', {}, 'That did not work.'), ` ${error.message[0].toUpperCase()}${error.message.slice(1)}`)
    if (error.press === 'again') box.append(make('button', {type: 'button', onclick: again}, 'Try again'))
    if (error.press === 'reload') box.append(make('button', {type: 'button', onclick: () => location.reload()}, 'Reload'))
    return box
  }

  // One photo.
  let stopOne = new AbortController()
  const ask = async (file, example) => {
    stopOne.abort()
    const stop = (stopOne = new AbortController()).signal, verdict = find('.one .verdict')
    document.querySelectorAll('.examples button').forEach(
      one => one.setAttribute('aria-pressed', one === example))
    const photo = make('img', {alt: '', src: URL.createObjectURL(file), onerror: () => photo.remove()})
    photo.onload = () => URL.revokeObjectURL(photo.src)
    verdict.replaceChildren(make('div', {className: 'looking'},
      make('p', {role: 'status'}, 'Looking …'), make('div', {className: 'seen'}, photo)))
    if (verdict.getBoundingClientRect().top > innerHeight * 0.7) verdict.scrollIntoView({block: 'start'})
    try {
      const given = await upload(file, Number(find('.one').dataset.limit), stop)
      const html = await call('show', [given], stop)
      if (!stop.aborted) verdict.innerHTML = html
    } catch (error) {
      if (!stop.aborted) verdict.replaceChildren(told(error, () => ask(file, example)))
    }
    heat()
  }

  // Many photos: one after the other, when it is this visitor's turn.
  let stopMany = new AbortController(), lines = []
  const many = async files => {
    stopMany.abort()
    const stop = (stopMany = new AbortController()).signal
    const box = find('.many'), [status, bar] = box.querySelectorAll('.state > *')
    const cards = box.querySelector('.cards'), doubts = []
    let done = 0, total = files.length, failed = 0, unlike = 0
    lines = [box.dataset.columns]
    cards.replaceChildren()
    const tell = (text, working = true) => {
      status.textContent = text
      bar.hidden = box.querySelector('.stop').hidden = !working
      bar.value = done / total
      box.querySelector('.csv').hidden = working || lines.length < 2
    }
    const add = ({html, line, doubt}) => {
      const place = doubts.filter(other => other >= doubt).length
      doubts.splice(place, 0, doubt)
      cards.insertBefore(make('template', {innerHTML: html}).content, cards.children[place] ?? null)
      lines.push(line)
      done += 1
      failed += cards.children[place].matches('.bad')
      unlike += cards.children[place].matches('.doubt')
    }
    const summary = () => `${failed ? `, ${failed} could not be opened` : ''}${unlike ? `, ${unlike} unlike the training images` : ''}`
    const send = async file => {
      const given = await upload(file, Number(box.dataset.limit), stop)
      for (let start = 0, known = 1; start !== null;) {
        const found = await call('show_some', [given, start], stop)
        if (stop.aborted) return
        if (found.problem) throw new Trouble(found.problem)
        if (found.ahead) {
          tell(`${found.ahead} ${found.ahead > 1 ? 'visitors are' : 'visitor is'} ahead of you. Your photos begin by themselves.`)
          await new Promise(next => setTimeout(next, 1000))
          continue
        }
        total += found.total - known
        known = found.total
        found.cards.forEach(add)
        tell(`${done} of ${total} done${summary()}`)
        start = found.next
      }
    }
    tell(`0 of ${total} done`)
    for (let place = 0; place < files.length && !stop.aborted; place += 1) {
      try {
        await send(files[place])
      } catch (error) {
        if (stop.aborted) break
        if (error.press === '') {
          const name = files[place].name, quoted = text => `"${text.replace(/^[=+\-@\t\r＝＋－＠]/, "'$&").replaceAll('"', '""')}"`
          const card = make('li', {className: 'bad'}, make('i', {}), make('div', {},
            make('b', {}, 'Not opened'), make('small', {}, error.message), make('span', {title: name}, name)))
          const blank = ','.repeat(box.dataset.columns.split(',').length - 1)
          add({html: card.outerHTML, line: `${quoted(name)}${blank}${quoted(error.message)}\n`, doubt: -Infinity})
          tell(`${done} of ${total} done${summary()}`)
        } else {
          tell(`${done} of ${total} done${summary()}`, false)
          await new Promise(again => {
            status.after(told(error, again))
            stop.addEventListener('abort', again)
          })
          box.querySelector('.trouble').remove()
          place -= 1
        }
      }
    }
    if (stop.aborted) return
    tell(`${done - failed} of ${done} predicted${summary()}`, false)
    call('show_some', [null, 0], stop).catch(() => {})
  }
  const save = () => {
    const file = new Blob(['\ufeff', ...lines], {type: 'text/csv'})  // Excel takes a file without this mark for Latin-1
    const link = make('a', {href: URL.createObjectURL(file), download: 'predictions.csv'})
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000)
  }

  // How photos come: chosen, taken, dropped, pasted, or an example.
  const take = files => {
    if (files.length) shown('.many') ? many([...files]) : shown('.one') && ask(files[0])
  }
  const close = () => {
    const dialog = find('dialog.camera'), video = dialog.querySelector('video')
    video.srcObject?.getTracks().forEach(track => track.stop())
    video.srcObject = null
    dialog.close()
  }
  const failed = text => find('.one .verdict').replaceChildren(told(new Trouble(text)))
  const pressed = {
    choose: button => button.parentElement.querySelector('input').click(),
    take: async button => {
      if (matchMedia('(pointer: coarse)').matches || !navigator.mediaDevices)
        return button.parentElement.querySelector('[capture]').click()
      try {
        find('dialog.camera video').srcObject = await navigator.mediaDevices.getUserMedia({video: true})
        find('dialog.camera').showModal()
      } catch {
        failed('The camera cannot be used: it is missing, or this page may not use it.')
      }
    },
    shoot: () => {
      const video = find('dialog.camera video'), {videoWidth: width, videoHeight: height} = video
      const canvas = make('canvas', {width, height})
      canvas.getContext('2d').drawImage(video, 0, 0)
      close()
      canvas.toBlob(blob => ask(new File([blob], 'camera.jpg')), 'image/jpeg', 0.95)
    },
    close,
    paste: async () => {
      for (const item of await navigator.clipboard?.read().catch(() => []) ?? []) {
        const kind = item.types.find(type => type.startsWith('image/'))
        if (kind) return ask(new File([await item.getType(kind)], `pasted.${kind.slice(6)}`))
      }
      failed('There is no photo in the clipboard, or this page may not read it. Copy a photo, then press Ctrl+V.')
    },
    stop: () => {
      stopMany.abort()
      const [status, bar] = document.querySelectorAll('.many .state > *')
      status.textContent = `Stopped after ${lines.length - 1}.`
      bar.hidden = find('.many .stop').hidden = true
      find('.many .csv').hidden = lines.length < 2
      call('show_some', [null, 0], new AbortController().signal).catch(() => {})
    },
    csv: save
  }
  document.addEventListener('click', async ({target}) => {
    const button = target.closest?.('.one button, .many button')
    if (!button) return
    const example = button.querySelector(':scope > img')
    if (example) return ask(new File([await (await fetch(example.src)).blob()], 'example.jpg'), button)
    for (const name of button.classList) pressed[name]?.(button)
  })
  document.addEventListener('change', ({target}) => {
    if (!target.matches('.drop input')) return
    take(target.files)
    target.value = ''  // so that the same photo can be chosen once more
  })
  document.addEventListener('dragover', event => {
    event.preventDefault()
    shown('.drop')?.classList.add('over')
  })
  for (const name of ['dragleave', 'drop'])
    document.addEventListener(name, event => {
      if (event.relatedTarget) return
      event.preventDefault()
      document.querySelectorAll('.over').forEach(one => one.classList.remove('over'))
      if (name === 'drop') take(event.dataTransfer.files)
    })
  document.addEventListener('paste', event => take(event.clipboardData.files))

  // The heat map's strength and class.
  let strength = 70
  const heat = () => {
    const result = find('.result'), slider = result?.querySelector('.strength input')
    if (!slider) return
    slider.value = strength
    result.style.setProperty('--strength', strength / 100)
  }
  document.addEventListener('input', ({target}) => {
    if (!target.matches('.strength input')) return
    strength = target.value
    heat()
  })
  document.addEventListener('change', ({target}) => {
    if (!target.matches('.classes input')) return
    target.closest('.result').querySelectorAll('.heat').forEach(one => {
      one.hidden = one.dataset.place !== target.value
    })
  })
})()
