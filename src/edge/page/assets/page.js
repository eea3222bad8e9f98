// Keeps the first page current, and copies snippets. Every page is whole without it.
'use strict'

// What comes as a region was escaped where it was rendered, as the page itself was.
const policy = globalThis.trustedTypes?.createPolicy('layover', { createHTML: text => text })
const parse = text => {
  const template = document.createElement('template')
  template.innerHTML = policy ? policy.createHTML(text) : text
  return template.content
}

/** Makes `old` like `fresh` and keeps what is alike, so that focus, selection and what was opened stay. */
const morph = (old, fresh) => {
  const wanted = [...fresh.childNodes]
  for (const [index, node] of wanted.entries()) {
    const present = old.childNodes[index]
    if (present === undefined) old.append(node)
    else if (present.nodeName !== node.nodeName) present.replaceWith(node)
    else if (present.nodeType !== Node.ELEMENT_NODE) {
      if (present.data !== node.data) present.data = node.data
    } else {
      morphAttributes(present, node)
      morph(present, node)
    }
  }
  while (old.childNodes.length > wanted.length) old.lastChild.remove()
}

const morphAttributes = (old, fresh) => {
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value)
  // Whoever opened something opened it.
  for (const name of old.getAttributeNames())
    if (!fresh.hasAttribute(name) && name !== 'open') old.removeAttribute(name)
}

const keepCurrent = url => {
  const state = document.getElementById('live')
  const button = document.createElement('button')
  button.type = 'button'
  state.after(button)
  let source
  let paused = false
  let again

  const say = text => {
    if (state.textContent !== text) state.textContent = text
  }
  const stop = () => {
    clearTimeout(again)
    source?.close()
    source = undefined
  }
  const start = () => {
    stop()
    if (paused || document.hidden) return
    source = new EventSource(url)
    source.addEventListener('message', event => {
      for (const [id, text] of Object.entries(JSON.parse(event.data))) {
        const region = document.getElementById(id)
        if (region) morph(region, parse(text))
      }
      say('live')
    })
    source.addEventListener('error', () => {
      say('not connected')
      // What ended for good is tried again all the same: Layover may be back.
      stop()
      again = setTimeout(start, 3000)
    })
  }
  const show = () => {
    button.textContent = paused ? 'Go on' : 'Pause'
  }
  button.addEventListener('click', () => {
    paused = !paused
    show()
    if (paused) {
      stop()
      say('paused')
    } else start()
  })
  // Nobody looks: nothing is sent.
  document.addEventListener('visibilitychange', () => (document.hidden ? stop() : start()))
  addEventListener('pagehide', stop)
  addEventListener('pageshow', event => event.persisted && start())
  show()
  start()
}

const offerCopies = () => {
  // Browsers give the clipboard to secure origins only.
  if (!navigator.clipboard) return
  for (const file of document.querySelectorAll('.file')) {
    const button = document.createElement('button')
    button.type = 'button'
    button.textContent = 'Copy'
    button.setAttribute('aria-label', `Copy ${file.querySelector('figcaption').textContent}`)
    const say = text => () => (button.textContent = text)
    button.addEventListener('click', () => {
      const text = `${file.querySelector('code').textContent}\n`
      navigator.clipboard.writeText(text).then(say('Copied'), say('Not copied'))
    })
    file.querySelector('figcaption').append(button)
  }
}

const { live } = document.documentElement.dataset
if (live) keepCurrent(live)
offerCopies()
