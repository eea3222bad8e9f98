import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    // Real servers and real processes: a test that hangs is a bug, so time is bounded, and nothing is retried.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    retry: 0,
    pool: 'forks',
    maxWorkers: 2,
    // An unhandled rejection anywhere fails the run (F-43).
    dangerouslyIgnoreUnhandledErrors: false,
    projects: [
      { extends: true, test: { name: 'embedded', include: ['test/**/*.test.ts'] } },
      {
        // The same tests with Redis and a bucket: what decides about rights, ranges, trust and availability. Not yet among them are those that
        // hold with one disk and have not been seen to hold here (slow readers, T-34; manifests of 24,000 layers, T-42), and their files with them.
        extends: true,
        test: {
          name: 'distributed',
          include: [
            'test/edge/ranges.test.ts',
            'test/edge/rights.test.ts',
            'test/faults/availability.test.ts',
            'test/faults/machine.test.ts',
            'test/faults/trust.test.ts',
          ],
          env: { LAYOVER_TEST_SETUP: 'distributed' },
          setupFiles: ['test/fakes/distributed-setup.ts'],
        },
      },
    ],
  },
})
