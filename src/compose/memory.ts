import { setFlagsFromString } from 'node:v8'

/**
 * Every chunk of a body is memory outside of V8's heap. By default V8 collects all of its heap after each 64 MiB of such memory, which takes half of the
 * CPU of a download from the bucket or another replica, where the heap is larger too. This way that limit grows with the heap, as for everything
 * else: up to some 50 MiB more are resident. On one machine, where memory counts more, it stays as it is.
 */
export function collectLessOften(): void {
  setFlagsFromString('--external-memory-accounted-in-global-limit')
}
