import { describe, expect, it } from 'vitest'
import {
  badGateway,
  blobUnknown,
  denied,
  digestInvalid,
  manifestInvalid,
  manifestUnknown,
  nameInvalid,
  nameUnknown,
  paginationInvalid,
  rangeInvalid,
  unavailable,
  unsupported,
} from '../../src/oci/errors.ts'

describe('registry errors', () => {
  it.each([
    [nameInvalid('x', 'y'), 400, 'NAME_INVALID'],
    [nameUnknown('x'), 404, 'NAME_UNKNOWN'],
    [digestInvalid('x', 'y'), 400, 'DIGEST_INVALID'],
    [manifestUnknown('x'), 404, 'MANIFEST_UNKNOWN'],
    [manifestInvalid('x', 'y'), 502, 'MANIFEST_INVALID'],
    [blobUnknown('x'), 404, 'BLOB_UNKNOWN'],
    [unsupported('x'), 405, 'UNSUPPORTED'],
    [denied('x'), 403, 'DENIED'],
    [rangeInvalid(1), 416, 'RANGE_INVALID'],
    [paginationInvalid('x'), 400, 'PAGINATION_NUMBER_INVALID'],
    [badGateway('x'), 502, 'UNAVAILABLE'],
    [unavailable('x'), 503, 'UNAVAILABLE'],
  ])('P-98: %s', (error, status, code) => {
    expect(error).toMatchObject({ name: 'RegistryError', status, code })
  })

  it('P-15: a method that is not supported names those that are', () => {
    expect(unsupported('uploads').headers).toEqual({ allow: 'GET, HEAD' })
  })

  it('P-52: an unsatisfiable range tells the size', () => {
    expect(rangeInvalid(42).headers).toEqual({ 'content-range': 'bytes */42' })
  })

  it.each([
    [undefined, '1'],
    [0, '1'],
    [1, '1'],
    [1500, '2'],
    [60_000, '60'],
  ])('P-99: retry after %s ms is told as %s s', (retryAfterMs, text) => {
    expect(unavailable('x', retryAfterMs === undefined ? {} : { retryAfterMs }).headers['retry-after']).toBe(text)
  })

  it('keeps the cause for the log and out of the message', () => {
    const cause = new Error('https://user:secret@internal/')
    const error = badGateway('upstream cannot be used', cause)
    expect(error.cause).toBe(cause)
    expect(error.message).not.toContain('secret')
  })

  it('T-33: what a client sent is shown escaped and shortened', () => {
    const { message } = nameInvalid(`a\r\nb${'x'.repeat(5000)}`, 'no')
    expect(message).not.toMatch(/[\r\n]/)
    expect(message.length).toBeLessThan(300)
  })
})
