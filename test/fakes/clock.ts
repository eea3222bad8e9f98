import type { Clock } from '../../src/clock.ts'

/** Time that passes when the test says so. `jump` moves the wall clock alone (F-42). */
export class FakeClock implements Clock {
  #wall = Date.UTC(2026, 0, 1)
  #elapsed = 1_000_000

  now(): number {
    return this.#wall
  }
  monotonic(): number {
    return this.#elapsed
  }
  advance(ms: number): void {
    this.#wall += ms
    this.#elapsed += ms
  }
  jump(ms: number): void {
    this.#wall += ms
  }
}
