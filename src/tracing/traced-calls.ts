import type { Tracer } from './tracer.ts'

type Calls<T> = readonly { [K in keyof T]: T[K] extends (...args: never[]) => Promise<unknown> ? K : never }[keyof T][]

/**
 * `target` with a span around each of these calls, as a part of what runs now: `redis getTag`. Nothing of the arguments is told. Where nothing is
 * traced it is `target` itself.
 */
export function tracedCalls<T extends object>(tracer: Tracer, target: T, system: string, calls: Calls<T>): T {
  if (!tracer.on) return target
  const wrapped = new Map<PropertyKey, unknown>()
  for (const call of calls) {
    const method = target[call] as (...args: unknown[]) => Promise<unknown>
    const name = `${system} ${String(call)}`
    const attributes = { 'layover.store': system }
    wrapped.set(call, (...args: unknown[]) => tracer.child(name, attributes, () => method.apply(target, args)))
  }
  return new Proxy(target, {
    get(_, key) {
      const known = wrapped.get(key)
      if (known !== undefined) return known
      const value: unknown = Reflect.get(target, key, target)
      if (typeof value !== 'function') return value
      // Private fields know the object itself only.
      const bound: unknown = value.bind(target)
      wrapped.set(key, bound)
      return bound
    },
  })
}
