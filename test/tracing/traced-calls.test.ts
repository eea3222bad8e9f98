import { describe, expect, it } from 'vitest'
import { tracedCalls } from '../../src/tracing/traced-calls.ts'
import { noTracer, type Tracer } from '../../src/tracing/tracer.ts'

class Store {
  readonly kind = 'fake'
  #reads = 0

  async get(key: string): Promise<string> {
    this.#reads++
    if (key === 'bad') throw new Error('broken')
    return `${key} ${this.#reads}`
  }

  reads(): number {
    return this.#reads
  }
}

/** Writes down the spans that are asked for. */
function recording() {
  const spans: string[] = []
  const tracer: Tracer = {
    ...noTracer,
    on: true,
    child: (name, _attributes, work) => {
      spans.push(name)
      return work(undefined)
    },
  }
  return { tracer, spans }
}

describe('traced calls', () => {
  it('have a span each, and do and give what they did; all else is as it was', async () => {
    const { tracer, spans } = recording()
    const store = tracedCalls(tracer, new Store(), 'redis', ['get'])
    expect(await store.get('a')).toBe('a 1')
    await expect(store.get('bad')).rejects.toThrow('broken')
    expect([store.reads(), store.kind]).toEqual([2, 'fake'])
    expect(spans).toEqual(['redis get', 'redis get'])
  })

  it('are those of the store itself where nothing is traced', () => {
    const store = new Store()
    expect(tracedCalls(noTracer, store, 'redis', ['get'])).toBe(store)
  })
})

describe('no tracer', () => {
  it('runs the work and makes nothing', async () => {
    expect(noTracer.within(undefined, () => 1)).toBe(1)
    expect(await noTracer.child('x', {}, async span => span)).toBeUndefined()
    expect(noTracer.request({ name: 'GET', traceparent: undefined })).toBeUndefined()
    expect(noTracer.detached('fill', {})).toBeUndefined()
    expect(noTracer.traceparent()).toBeUndefined()
    await noTracer.close()
  })
})
