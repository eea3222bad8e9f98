import { readFileSync } from 'node:fs'
import { getCACertificates } from 'node:tls'
import { Cluster, Redis, type CommonRedisOptions } from 'ioredis'
import type { RedisConfig, RedisTlsConfig } from '../config/config.ts'

/** A connection of any of the three kinds; they take the same commands. */
export type RedisClient = Redis | Cluster

/** Redis is asked again after at most this long. */
const longestReconnectMs = 2000

/** Gives the password as it is now. Throws the system's error when its file cannot be read. */
export function passwordOf({ password, passwordFile }: RedisConfig): string | undefined {
  return passwordFile === undefined ? password : readFileSync(passwordFile, 'utf8').trim()
}

/** A client that starts to connect at once and goes on trying for ever. Commands fail at once while it has no connection. */
export function createRedisClient(config: RedisConfig, password: string | undefined): RedisClient {
  const { endpoint } = config
  const common = commonOptions(config, password)
  if (endpoint.kind === 'cluster')
    return new Cluster(
      endpoint.nodes.map(({ host, port }) => ({ host, port })),
      {
        redisOptions: common,
        enableOfflineQueue: false,
        clusterRetryStrategy: reconnectDelayMs,
        // Behind TLS a node is known by its name; as it is everywhere else, Redis is believed about addresses.
        ...(common.tls && { dnsLookup: (address, callback) => callback(null, address) }),
        // Twice 50 ms beside a node that is gone: long enough to learn who replaced it, too short to be a time-out.
        maxRedirections: 2,
        retryDelayOnFailover: 50,
        retryDelayOnClusterDown: 50,
        retryDelayOnTryAgain: 50,
        slotsRefreshTimeout: handshakeMs(config),
        slotsRefreshInterval: 15_000,
      },
    )
  const single = {
    ...common,
    enableOfflineQueue: false,
    retryStrategy: reconnectDelayMs,
    reconnectOnError: leaveReplicas(),
  }
  if (endpoint.kind === 'sentinels')
    return new Redis({
      ...single,
      sentinels: endpoint.sentinels.map(({ host, port }) => ({ host, port })),
      name: endpoint.name,
      ...(config.sentinelUsername !== undefined && { sentinelUsername: config.sentinelUsername }),
      ...(config.sentinelPassword !== undefined && { sentinelPassword: config.sentinelPassword }),
      sentinelRetryStrategy: reconnectDelayMs,
      sentinelReconnectStrategy: reconnectDelayMs,
      sentinelCommandTimeout: handshakeMs(config),
      ...(common.tls && { enableTLSForSentinelMode: true, sentinelTLS: common.tls }),
      failoverDetector: true,
    })
  const { hostname, port, pathname, protocol } = new URL(endpoint.url)
  const tls = common.tls ?? (protocol === 'rediss:' ? tlsOptions({ ca: undefined, servername: undefined }) : undefined)
  return new Redis({
    ...single,
    host: hostname.replace(/^\[|\]$/g, ''),
    port: port === '' ? 6379 : Number(port),
    db: Number(pathname.slice(1)) || 0,
    ...(tls && { tls }),
  })
}

function commonOptions(config: RedisConfig, password: string | undefined) {
  return {
    ...(config.username !== undefined && { username: config.username }),
    ...(password !== undefined && { password }),
    ...(config.tls && { tls: tlsOptions(config.tls) }),
    connectionName: 'layover',
    disableClientInfo: true,
    protocol: 2,
    connectTimeout: handshakeMs(config),
    // The last bounds, behind those of who asks.
    commandTimeout: patienceMs(config) + 500,
    // A connection that gives no byte while something is asked is dead or stands still: another one is tried.
    socketTimeout: patienceMs(config) + 500,
    keepAlive: 30_000,
    // What was asked before a connection broke was given up by who asked: sending it again helps nobody.
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    maxLoadingRetryTime: longestReconnectMs,
  } as const satisfies CommonRedisOptions & { readonly tls?: object }
}

function tlsOptions({ ca, servername }: RedisTlsConfig) {
  return {
    minVersion: 'TLSv1.2',
    ...(ca !== undefined && { ca: [...getCACertificates('default'), ca] }),
    ...(servername !== undefined && { servername }),
  } as const
}

/** Connecting is rare and takes several round trips: it may take longer than a command. */
function handshakeMs({ commandTimeoutMs }: RedisConfig): number {
  return Math.max(1000, 4 * commandTimeoutMs)
}

/** How long an answer is waited for without which a whole blob would be downloaded again. */
export function patienceMs({ commandTimeoutMs }: Pick<RedisConfig, 'commandTimeoutMs'>): number {
  return Math.max(2_000, commandTimeoutMs)
}

function reconnectDelayMs(attempts: number): number {
  return Math.min(50 * 2 ** Math.min(attempts, 6), longestReconnectMs)
}

/**
 * After a failover a name may lead to the old master, which is a replica now: connecting anew finds the new one (F-61). Where it does
 * not, reading goes on, so this is not done at every write.
 */
function leaveReplicas(): (error: Error) => boolean {
  let last = Number.NEGATIVE_INFINITY
  return error => {
    if (!error.message.startsWith('READONLY')) return false
    const now = performance.now()
    if (now - last < 5000) return false
    last = now
    return true
  }
}
