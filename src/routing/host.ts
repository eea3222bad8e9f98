const label = /^[a-z0-9-]{1,63}$/

/**
 * The one spelling of a registry's `host[:port]`: lower case, without the port that https implies. Undefined when it is no such thing:
 * userinfo, a path, a trailing dot, other characters than ASCII (T-4, T-24).
 */
export function normaliseHost(text: string): string | undefined {
  // Checked before lower-casing: U+212A would turn into a k.
  if (text.length > 255 || !/^[A-Za-z0-9.:-]+$/.test(text)) return undefined
  const [host = '', port, ...rest] = text.toLowerCase().split(':')
  if (rest.length > 0 || !host.split('.').every(isLabel)) return undefined
  if (port === undefined) return host
  if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65_535) return undefined
  return port === '443' ? host : `${host}:${port}`
}

function isLabel(text: string): boolean {
  return label.test(text) && !text.startsWith('-') && !text.endsWith('-')
}
