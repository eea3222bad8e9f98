/** What the process ends with. 0: did what was asked. 1: configuration or usage. 2: failed while running. 3: a check failed. */
export const exitCode = { ok: 0, usage: 1, failed: 2, checkFailed: 3 } as const
