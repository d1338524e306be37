// The heat map's strength and class, and uploads one by one: all in the browser.
(() => {
  let strength = 70
  const show = () => document.querySelectorAll('.result').forEach(result => {
    const slider = result.querySelector('.strength input')
    if (!slider) return
    slider.value = strength
    result.style.setProperty('--strength', strength / 100)
  })
  document.addEventListener('input', event => {
    if (!event.target.matches('.strength input')) return
    strength = event.target.value
    show()
  })
  document.addEventListener('change', event => {
    if (!event.target.matches('.classes input')) return
    event.target.closest('.result').querySelectorAll('.heat').forEach(heat => {
      heat.hidden = heat.dataset.place !== event.target.value
    })
  })
  // Gradio leaves its examples without a name, and one of its buttons with the name of a translation.
  const name = () => {
    document.querySelectorAll('.gallery-item:not([aria-label])').forEach(
      item => item.setAttribute('aria-label', `Example ${[...item.parentElement.children].indexOf(item) + 1}`))
    document.querySelectorAll('[aria-label="common.upload"]').forEach(button => {
      button.ariaLabel = button.title = 'Add files'
    })
  }
  new MutationObserver(() => { show(); name() }).observe(document, {childList: true, subtree: true})

  // What the browser cannot show as a picture is not shown as a broken one; kit may still open it, or says why not.
  for (const event of ['error', 'load'])
    document.addEventListener(event, ({target}) => {
      if (target.matches?.('.photo img')) target.style.visibility = event === 'error' ? 'hidden' : ''
    }, true)

  // The server limits a request; many photos are sent one after another, and a refusal is said in words.
  const plain = window.fetch
  window.fetch = async (address, options) => {
    if (!String(address?.url ?? address).includes('/gradio_api/upload') || !(options?.body instanceof FormData))
      return plain(address, options)
    const stored = []
    for (const file of options.body.getAll('files')) {
      const form = new FormData()
      form.append('files', file)
      const answer = await plain(address, {...options, body: form})
      if (!answer.ok) {
        const said = await answer.json().catch(() => ({error: 'refused'}))
        return new Response(`${file.name}: ${said.error}${said.fix ? `; ${said.fix}` : ''}`, {status: answer.status})
      }
      stored.push(...await answer.json())
    }
    return new Response(JSON.stringify(stored), {headers: {'content-type': 'application/json'}})
  }
})()
