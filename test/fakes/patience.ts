import { vi } from 'vitest'

/**
 * What is waited for comes; on a machine that others use too it may take many seconds. One second, which is what `vi.waitFor` gives by itself, is a timed
 * assertion. For `expect.poll` the configuration says the same.
 */
const patienceMs = 20_000

const { waitFor } = vi
vi.waitFor = (callback, options = {}) => {
  const { timeout = 0, ...rest } = typeof options === 'number' ? { timeout: options } : options
  return waitFor(callback, { interval: 20, ...rest, timeout: Math.max(timeout, patienceMs) })
}
