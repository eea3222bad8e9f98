import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createLog, createSilentLog, type Log, type LogLevel } from '../../src/log/log.ts'

const canary = 'hunter2Canary4711'

function collecting(level: LogLevel | 'silent' = 'trace'): {
  log: Log
  lines: () => Record<string, unknown>[]
  raw: string[]
} {
  const raw: string[] = []
  const log = createLog({ level, stream: { write: (line: string) => raw.push(line) } })
  return { log, raw, lines: () => raw.map(line => JSON.parse(line) as Record<string, unknown>) }
}

test('writes one JSON object per line, with level, time, fields and message', () => {
  const { log, lines } = collecting()
  log.info({ bytes: 3 }, 'pulled')
  log.warn('careful')
  expect(lines()).toEqual([
    { level: 'info', time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/), bytes: 3, msg: 'pulled' },
    { level: 'warn', time: expect.any(String), msg: 'careful' },
  ])
})

test('children add their fields', () => {
  const { log, lines } = collecting()
  log.child({ upstream: 'quay.io' }).child({ n: 1 }).error({ e: 2 }, 'x')
  expect(lines()).toMatchObject([{ upstream: 'quay.io', n: 1, e: 2, msg: 'x' }])
})

test('what is below the level is not written', () => {
  const { log, raw } = collecting('warn')
  log.info('no')
  log.debug({ a: 1 }, 'no')
  log.warn('yes')
  expect(raw).toHaveLength(1)
  expect([log.isLevelEnabled('info'), log.isLevelEnabled('error')]).toEqual([false, true])
  createSilentLog().error('nowhere')
})

test('T-10: no way in lets a secret out', () => {
  const { log, raw } = collecting()
  log
    .child({ authorization: canary, url: `https://a.io/?t=${canary}` })
    .info({ cookie: canary, err: new Error(`token=${canary}`) }, `Bearer ${canary}`)
  log.error(`password=${canary}`)
  expect(raw.join('')).not.toContain(canary)
})

test('T-51: every line is one JSON object, whatever is in it', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.dictionary(fc.string(), fc.anything()), (message, fields) => {
      const { log, raw, lines } = collecting()
      log.info(fields, message)
      expect(raw).toHaveLength(1)
      expect(raw[0]?.indexOf('\n')).toBe((raw[0]?.length ?? 0) - 1)
      expect(lines()[0]).toBeTypeOf('object')
    }),
  )
})
