import * as z from 'zod'
import { defaultAddresses } from './config.ts'
import { distributedSchemas } from './distributed.ts'
import { pricingSchema } from './pricing.ts'
import { tracingSchema } from './tracing.ts'
import {
  address,
  aliases,
  count,
  duration,
  flag,
  hosts,
  oneOf,
  proxyUrl,
  secret,
  share,
  size,
  text,
  url,
  urls,
} from './values.ts'

const second = 1000

const timeouts = z
  .strictObject({
    connect: duration('Until the connection, TLS included, stands.', { min: 1, timer: true }).prefault('5s'),
    headers: duration('Until the first byte of an answer.', { min: 1, timer: true }).prefault('20s'),
    idle: duration('Without a byte of a body; the download is then resumed on another connection.', {
      min: 1,
      timer: true,
    }).prefault('30s'),
  })
  .prefault({})
  .meta({ description: 'How long this upstream may take.' })

/** One entry of `upstreams`, as it is written. */
export const upstreamSchema = z
  .strictObject({
    url: url('Where the registry API lives, without /v2. Default: https://<name>.').optional(),
    mirrors: urls('More URLs of the same content, to fall over to for content by digest.').prefault([]),
    default: flag('Answers plain /v2/<repository> requests that name no registry. At most one upstream.').prefault(
      false,
    ),
    aliases: aliases('Other names of the same registry in image references.').prefault([]),
    username: text('User name at the registry.').optional(),
    password: secret('Password or token. Prefer passwordFile or passwordEnv.').optional(),
    passwordFile: text('File that holds the password; read again when it changes.').optional(),
    passwordEnv: text('Environment variable that holds the password.').optional(),
    dockerConfig: text('A docker config.json with the credentials of this registry.').optional(),
    ca: text('PEM file of authorities to trust in addition to the system.').optional(),
    insecure: flag('Accept plain http or unverified TLS. Said loudly at start.').prefault(false),
    proxy: proxyUrl('Outgoing HTTP proxy. Default: HTTPS_PROXY, HTTP_PROXY, NO_PROXY.').optional(),
    realmHosts: hosts("Hosts besides the registry's own domain that may issue its tokens.").prefault([]),
    redirectHosts: hosts(
      'Hosts on private addresses that its redirects may point at, such as an in-house object store.',
    ).prefault([]),
    maxConnections: count('Connections to this upstream at once.', { min: 1, max: 10_000 }).prefault(64),
    timeouts,
    tagTtl: duration('A tag is served without asking upstream for this long.', { min: 0, timer: false }).prefault('5m'),
    maxStale: duration('A tag that upstream cannot confirm (down, limited) is served for this long.', {
      min: 0,
      timer: false,
    }).prefault('7d'),
    whenGone: oneOf(['deny', 'serve'], 'What happens to a cached tag that upstream says is gone.').prefault('deny'),
  })
  .meta({ description: 'One registry that is cached.' })

const storage = z
  .strictObject({
    maxBytes: size('Budget of everything under dataDir; the least recently used blobs make room.', { min: 1 }).prefault(
      '50GiB',
    ),
  })
  .prefault({})
  .meta({ description: 'How much is kept.' })

const fills = z
  .strictObject({
    finishWithin: size('A download that no client waits for any more goes on when no more than this is missing …', {
      min: 0,
    }).prefault('64MiB'),
    finishFrom: share('… or when at least this share has arrived.').prefault('50%'),
    abandon: duration('Any other download without clients is cancelled after this.', { min: 0, timer: true }).prefault(
      '10s',
    ),
    near: size('A range that starts at most this far ahead of the running download waits for it.', { min: 0 }).prefault(
      '8MiB',
    ),
    sideReads: count('Ranges further ahead that are fetched beside one download at once.', {
      min: 0,
      max: 64,
    }).prefault(4),
    attempts: count('Attempts without progress before a download is given up.', { min: 1, max: 100 }).prefault(5),
    earlyRanges: flag(
      'true: ranges that do not start at 0 are complete before the whole blob is verified, for lazy-pulling snapshotters that verify by themselves.',
    ).prefault(false),
  })
  .prefault({})
  .meta({ description: 'Running downloads.' })

const clients = z
  .strictObject({
    maxConnections: count('Client connections at once.', { min: 1, max: 1_000_000 }).prefault(10_000),
    maxConnectionsPerAddress: count(
      'Connections of one address (IPv6: one /64 network) at once; more get 503. Not for loopback. Default: half of maxConnections.',
      { min: 1, max: 1_000_000 },
    ).optional(),
    stall: duration('A client that takes no byte for this long is disconnected.', {
      min: second,
      timer: true,
    }).prefault('60s'),
  })
  .prefault({})
  .meta({ description: 'Limits for clients.' })

const rights = z
  .strictObject({
    maxAge: duration(
      'Where credentials are configured: how long a repository may be read without asking upstream again. 0s: for ever.',
      { min: 0, timer: false },
    ).prefault('24h'),
  })
  .prefault({})
  .meta({ description: 'Which repository may be read.' })

const log = z
  .strictObject({
    level: oneOf(
      ['trace', 'debug', 'info', 'warn', 'error', 'silent'],
      'Least important level that is written.',
    ).prefault('info'),
    access: flag('One line per request.').prefault(true),
  })
  .prefault({})
  .meta({ description: 'The log on standard output: one JSON object per line.' })

/** Everything but `upstreams`: those are checked one by one, so that each names its own problems. */
export const serverSchema = z.strictObject({
  listen: address('Where the registry listens.').prefault(defaultAddresses.listen),
  admin: address(
    'Where the status page, /metrics, /livez, /readyz and /status listen. Keep it off the network of the clients.',
  ).prefault(defaultAddresses.admin),
  dataDir: text('Directory of blobs, manifests and running downloads.').prefault('./data'),
  storage,
  dockerConfig: text('A docker config.json with credentials for every upstream that has none of its own.').optional(),
  prefetch: oneOf(
    ['off', 'config', 'all'],
    'What a pulled manifest fetches ahead: nothing, its config blob, or its layers too.',
  ).prefault('off'),
  offline: flag('true: never dial an upstream; what is not cached is 404.').prefault(false),
  fills,
  clients,
  rights,
  ...distributedSchemas,
  pricing: pricingSchema,
  drain: duration('How long a stop waits for running responses.', { min: 0, timer: true }).prefault('5m'),
  log,
  tracing: tracingSchema,
})

export type ServerInput = z.output<typeof serverSchema>
export type UpstreamInput = z.output<typeof upstreamSchema>

/** The JSON Schema (draft-07) of the file form, for editors: `layover config schema`. */
export function configJsonSchema(): Record<string, unknown> {
  const upstreams = z
    .record(
      z.string(),
      z.union([z.literal(false).meta({ description: 'Removes a built-in registry.' }), upstreamSchema, z.null()]),
    )
    .optional()
    .meta({ description: 'Registries by their host as in image names. Well-known ones are built in.' })
  const { $schema, ...schema } = z.toJSONSchema(serverSchema.extend({ upstreams }), { target: 'draft-07', io: 'input' })
  return {
    $schema,
    title: 'Layover configuration',
    description: 'Configuration file of the Layover pull-through registry cache.',
    ...schema,
  }
}
