import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { describeError, redactFields, redactText, redactUrl } from '../../src/log/redact.ts'

const canary = 'hunter2Canary4711'

describe('T-10: URLs', () => {
  test.each([
    [
      `https://user:${canary}@s3.example.com:9000/b/k?X-Amz-Signature=${canary}#${canary}`,
      'https://s3.example.com:9000/b/k?…',
    ],
    ['https://quay.io/v2/', 'https://quay.io/v2/'],
    ['http://127.0.0.1:5000', 'http://127.0.0.1:5000'],
    ['http://127.0.0.1:5000/', 'http://127.0.0.1:5000/'],
    ['https://a.io?x', 'https://a.io?…'],
    [`/v2/x/blobs/sha256:ab?sig=${canary}`, '/v2/x/blobs/sha256:ab?…'],
    [`//u:${canary}@host/path`, '//***@host/path'],
  ])('%s', (url, shown) => expect(redactUrl(url)).toEqual(shown))

  test('what is no URL is cut all the same', () => {
    expect(redactUrl(`http://[bad/u:${canary}@host?token=${canary}`)).not.toContain('token')
  })

  test('whatever the query is, it is not shown', () => {
    fc.assert(
      fc.property(fc.webUrl({ withQueryParameters: true }), url => {
        const [base = '', query = ''] = url.split('?')
        const shown = redactUrl(`${base}?${query}${canary}`)
        expect(shown).not.toContain(canary)
        expect(shown.endsWith('?…')).toBe(true)
      }),
    )
  })
})

describe('T-10: text', () => {
  test.each([
    [`Authorization: Basic ${canary}==`],
    [`authorization=Bearer ${canary}`],
    [`asked with Bearer ${canary}.${canary}`],
    [`{"access_token":"${canary}","expires_in":300}`],
    [`{"token": "${canary}"}`],
    [`grant_type=password&password=${canary}&username=u`],
    [`password: ${canary}`],
    [`GET https://u:${canary}@a.io/x?y=${canary} failed`],
    [`redirected to (https://a.io/x?y=${canary}).`],
    [`X-Amz-Credential=${canary}/20261123&X-Amz-Signature=${canary}`],
    [`x-amz-security-token: ${canary}`],
    [`set-cookie: sid=${canary}; path=/`],
    [`cookie: ${canary}`],
    [`sig=${canary}`],
    [`x-registry-token: ${canary}`],
    [`proxy http://u:${canary}@proxy:3128 refused`],
    [`eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.${canary}`],
  ])('%s', text => expect(redactText(text)).not.toContain(canary))

  test('what happened stays readable', () => {
    for (const text of [
      'cannot get a token: connection refused',
      'the token service answered 503',
      'connect ECONNREFUSED 10.0.0.1:443',
      'pulled library/alpine:3.20 from https://quay.io/v2/',
    ])
      expect(redactText(text)).toBe(text)
  })

  test('T-51: long text is cut', () => expect(redactText('x'.repeat(10_000)).length).toBeLessThan(2100))

  test('a long run of letters costs no time (T-52)', () => {
    const start = performance.now()
    for (const text of [
      'token'.repeat(2000),
      'a-'.repeat(5000),
      'Basic '.repeat(2000),
      'eyJ'.repeat(4000),
      'https://'.repeat(2000),
    ])
      redactText(text)
    expect(performance.now() - start).toBeLessThan(10_000)
  })
})

describe('T-10: fields', () => {
  test('by name, at any depth, of any kind', () => {
    const shown = redactFields({
      headers: { authorization: canary, Cookie: [canary], 'x-amz-date': canary, accept: 'x' },
      password: { nested: canary },
      apiToken: canary,
      map: new Map([['secret', canary]]),
      list: [{ 'set-cookie': canary }],
      url: new URL(`https://u:${canary}@a.io/?x=${canary}`),
      error: new Error(`password=${canary}`),
      bytes: Buffer.from(canary),
      text: `Bearer ${canary}`,
    })
    expect(JSON.stringify(shown)).not.toContain(canary)
    expect(shown['headers']).toMatchObject({ accept: 'x' })
  })

  test('numbers, dates, big numbers and circles survive', () => {
    const circle: Record<string, unknown> = { tokens: 3, at: new Date(0), big: 7n, gone: undefined }
    circle['self'] = circle
    const shown = redactFields(circle)
    expect(shown).toMatchObject({ tokens: 3, at: '1970-01-01T00:00:00.000Z', big: '7' })
    expect(() => JSON.stringify(shown)).not.toThrow()
  })
})

describe('describeError', () => {
  test('gives the causes as one line', () => {
    const inner = Object.assign(new Error('read failed\nagain'), { code: 'ECONNRESET' })
    expect(describeError(new Error('fill failed', { cause: new Error('upstream broke', { cause: inner }) }))).toBe(
      'fill failed: caused by: upstream broke: caused by: read failed again (ECONNRESET)',
    )
  })

  test('T-10: without secrets anywhere in the chain', () => {
    const inner = new Error(`GET https://u:${canary}@a.io/?t=${canary}`)
    expect(describeError(new Error(`password=${canary}`, { cause: new AggregateError([inner], '') }))).not.toContain(
      canary,
    )
  })

  test('anything can be thrown, and chains may be circles', () => {
    const circle = new Error('round')
    circle.cause = circle
    expect(describeError(circle)).toBe('round')
    expect(describeError('text')).toBe('text')
    expect(describeError(undefined)).toBe('undefined')
    expect(describeError({ secret: canary })).not.toContain(canary)
    expect(describeError(new TypeError(''))).toBe('TypeError')
  })
})
