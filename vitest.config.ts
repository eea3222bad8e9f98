import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Real servers and real processes: a test that hangs is a bug, so time is bounded, and nothing is retried.
    testTimeout: 30_000,
    hookTimeout: 60_000,
    retry: 0,
    pool: 'forks',
    maxWorkers: 2,
    // An unhandled rejection anywhere fails the run (F-43).
    dangerouslyIgnoreUnhandledErrors: false,
  },
})
