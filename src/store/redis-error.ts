/** Why Redis did not do what it was asked. `code`: Redis' own first word, or `TIMEOUT`, `UNAVAILABLE`. */
export class RedisFailure extends Error {
  override readonly name = 'RedisFailure'
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

const hints: Readonly<Record<string, string>> = {
  OOM: 'Redis is full and its maxmemory-policy is noeviction: allkeys-lru lets it make room',
  READONLY: 'this Redis is a replica; after a failover the next connection goes to the new master',
  NOPERM: 'the ACL user lacks a command or the key prefix: docs/redis.md has the line',
  NOAUTH: 'Redis asks for a password',
  WRONGPASS: 'Redis refuses user name or password',
  MISCONF: 'Redis cannot write its snapshot and takes no writes',
  LOADING: 'Redis is loading its data',
  CLUSTERDOWN: 'the cluster is down or slots have no node',
  NOREPLICAS: 'Redis has fewer replicas than min-replicas-to-write asks for',
}

/**
 * Whatever the client library threw, as an error that can be shown. Arguments of commands, a password among them, are properties of the
 * library's errors and part of some messages of Redis: nothing of those is kept, which is why there is no `cause` (T-10).
 */
export function redisFailure(error: unknown): RedisFailure {
  if (error instanceof RedisFailure) return error
  if (!(error instanceof Error)) return new RedisFailure('UNAVAILABLE', 'Redis cannot be reached')
  if (error.name === 'ReplyError') {
    const code = codeOf(error.message)
    return new RedisFailure(code, hints[code] ?? `Redis answers ${code}`)
  }
  if (error.message === 'Command timed out') return timedOut()
  const last = 'lastNodeError' in error && error.lastNodeError instanceof Error ? error.lastNodeError : undefined
  if (last) return redisFailure(last)
  return new RedisFailure('UNAVAILABLE', `Redis cannot be reached${reasonOf(error)}`)
}

export function timedOut(): RedisFailure {
  return new RedisFailure('TIMEOUT', 'Redis does not answer in time')
}

/** True when Redis answered, and the answer was an error: the connection works. */
export function isReply({ code }: RedisFailure): boolean {
  return code !== 'TIMEOUT' && code !== 'UNAVAILABLE'
}

function codeOf(message: string): string {
  // Redis 6 wraps what went wrong in a script: `ERR Error running script (call to f_…): @user_script:2: OOM command not allowed …`.
  const first = /^[A-Z]{2,20}(?= )/.exec(message)?.[0] ?? 'ERR'
  return (first === 'ERR' && /@user_script: ?\d+: -?([A-Z]{3,20})\b/.exec(message)?.[1]) || first
}

// Messages of the system hold an address and a word; others may hold anything.
function reasonOf(error: Error): string {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined
  if (code === undefined || !/^[A-Z0-9_]{3,40}$/.test(code)) return ''
  const address = 'address' in error && typeof error.address === 'string' ? ` at ${error.address}` : ''
  const port = 'port' in error && typeof error.port === 'number' ? `:${error.port}` : ''
  return `: ${code}${address}${port}`
}
