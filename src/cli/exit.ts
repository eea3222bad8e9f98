/**
 * What the process ends with. 0: did what was asked. 1: configuration or usage, and a `healthcheck` that was not answered well, because HEALTHCHECK
 * of a Dockerfile knows only that. 2: failed while running. 3: the demo broke a promise, the
 * doctor found something wrong, `node install` left somebody else's file alone.
 */
export const exitCode = { ok: 0, usage: 1, failed: 2, checkFailed: 3 } as const
