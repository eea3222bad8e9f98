import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    // Real servers and real processes: a test that hangs is a bug, so time is bounded, and nothing is retried.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    retry: 0,
    expect: { poll: { timeout: 20_000, interval: 20 } },
    setupFiles: ['test/fakes/patience.ts'],
    pool: 'forks',
    maxWorkers: 2,
    // An unhandled rejection anywhere fails the run (F-43).
    dangerouslyIgnoreUnhandledErrors: false,
    projects: [
      { extends: true, test: { name: 'embedded', include: ['test/**/*.test.ts'] } },
      {
        // The same tests with Redis and a bucket: everything that speaks to a running Layover (design: one code, two ways to run).
        extends: true,
        test: {
          name: 'distributed',
          include: ['test/{edge,faults,security}/**/*.test.ts'],
          env: { LAYOVER_TEST_SETUP: 'distributed' },
          setupFiles: ['test/fakes/patience.ts', 'test/fakes/distributed-setup.ts'],
        },
      },
    ],
  },
})
