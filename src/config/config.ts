import type { Network } from './network.ts'

/** The configuration after parsing: defaults filled in, units resolved, frozen. Bytes are numbers, durations are milliseconds. */
export type Config = {
  readonly listen: Address
  readonly admin: Address
  /** Absolute path: embedded stores and the spool. */
  readonly dataDir: string
  readonly storage: StorageConfig
  readonly upstreams: readonly UpstreamConfig[]
  readonly prefetch: Prefetch
  /** true: never dial; what is not cached is 404. */
  readonly offline: boolean
  readonly fills: FillConfig
  readonly clients: ClientLimits
  /** Absent: rights do not age. */
  readonly rights?: RightsConfig | undefined
  /** How long SIGTERM waits for running responses. */
  readonly drainMs: number
  readonly log: LogConfig
  /** Metadata and leases in a Redis that all replicas share; absent: in this machine's SQLite file and in this process. */
  readonly redis?: RedisConfig | undefined
  /** The bucket that replicas share; undefined: blobs rest on this machine alone. */
  readonly s3?: S3Config | undefined
  /** How much of the bucket is kept on this disk too; absent: as much as `storage.maxBytes`. */
  readonly hotTier?: HotTierConfig | undefined
  /** How other replicas reach this one; absent: every replica downloads by itself. */
  readonly replica?: ReplicaConfig | undefined
  /** Where traces go; absent: nothing is traced. */
  readonly tracing?: TracingConfig | undefined
  /** What traffic costs; absent: savings are told in bytes alone. */
  readonly pricing?: PricingConfig | undefined
}

/** Where both listen when nothing is said. */
export const defaultAddresses = { listen: '0.0.0.0:5000', admin: '127.0.0.1:5001' } as const

export type Address = { readonly host: string; readonly port: number }
export type Prefetch = 'off' | 'config' | 'all'

export type StorageConfig = {
  /** Budget of published blobs, running fills and manifests together. */
  readonly maxBytes: number
}

export type HotTierConfig = {
  /** Budget of what `storage.maxBytes` is the budget of without a bucket; 0: a blob goes from the disk as soon as it is in the bucket and nobody reads it. */
  readonly maxBytes: number
}

export type FillConfig = {
  /** A download that no client waits for any more goes on when no more than this is missing … */
  readonly finishWithinBytes: number
  /** … or when at least this share (0 to 1) has arrived; else it is cancelled after `abandonMs`. */
  readonly finishFromShare: number
  readonly abandonMs: number
  /** A range that starts at most this far ahead of the running download waits for it; one further ahead is fetched beside it. */
  readonly nearBytes: number
  /** Ranges fetched beside one download at once. */
  readonly maxSideReads: number
  /** Attempts without progress before a download is given up. */
  readonly maxAttempts: number
  /**
   * false: the last byte of every response, ranges included, waits until the whole blob has been verified.
   * true: ranges that do not start at 0 are complete as soon as upstream sent their bytes (lazy-pulling snapshotters that verify chunks by themselves).
   */
  readonly earlyRanges: boolean
}

export type ClientLimits = {
  readonly maxConnections: number
  /** Of one IPv4 address, or one /64 network of IPv6; loopback may have them all. Undefined: so may everybody. */
  readonly maxConnectionsPerAddress?: number | undefined
  /** A client that takes no byte for this long is disconnected. */
  readonly stallMs: number
}

export type LogConfig = {
  readonly level: 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent'
  /** One line per request. */
  readonly access: boolean
}

export type UpstreamConfig = {
  /** The canonical host, as in image names: `docker.io`, `registry.example.com:5000`. */
  readonly name: string
  /** Other names of the same registry: `index.docker.io`. */
  readonly aliases: readonly string[]
  /** Origin (and perhaps path) where the registry API lives, without `/v2/`. */
  readonly url: string
  /** More URLs of the same content, to fall over to for content by digest. */
  readonly mirrors: readonly string[]
  /** Answers plain `/v2/<repository>/…` without `ns` or prefix. At most one. */
  readonly default: boolean
  readonly credentials: CredentialsConfig | undefined
  /** PEM text of the authorities to trust in addition to the system's. */
  readonly ca: string | undefined
  /** Plain http or unverified TLS is acceptable. */
  readonly insecure: boolean
  /** Outgoing HTTP proxy URL; undefined: HTTPS_PROXY and friends. */
  readonly proxy: string | undefined
  /** Hosts besides the registry's own domain that may issue its tokens. */
  readonly realmHosts: readonly string[]
  /** Hosts on private addresses that its redirects may point at (an in-house object store). */
  readonly redirectHosts: readonly string[]
  readonly maxConnections: number
  readonly connectTimeoutMs: number
  readonly headersTimeoutMs: number
  /** No byte for this long: the connection is given up and the download resumed on another. */
  readonly idleTimeoutMs: number
  readonly tagTtlMs: number
  readonly maxStaleMs: number
  /** What a 404 for a tag that is cached means. */
  readonly whenGone: 'deny' | 'serve'
}

export type CredentialsConfig =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  | { readonly kind: 'passwordFile'; readonly username: string; readonly path: string }
  | { readonly kind: 'dockerConfig'; readonly path: string }

/** A bucket of blobs by digest. Credentials are never here: they come from the default chain (environment, profile, web identity, instance role). */
export type S3Config = {
  readonly bucket: string
  /** Keys are `<prefix>blobs/sha256/ab/<hex>`; empty, or ends with a slash. */
  readonly prefix: string
  /** Origin of a service that is not AWS: `http://127.0.0.1:9000`; undefined: AWS in `region`. */
  readonly endpoint: string | undefined
  readonly region: string
  /** The bucket is the first part of the path instead of the host name. */
  readonly pathStyle: boolean
  /** Encryption by the service: its own key (`AES256`), or one of KMS; undefined: what the bucket does by default. */
  readonly sse: 'AES256' | { readonly kmsKeyId: string } | undefined
  /** `STANDARD_IA`, `INTELLIGENT_TIERING`, …; undefined: the service's default. */
  readonly storageClass: string | undefined
  /** Put on each object; at most ten on AWS. */
  readonly tags: Readonly<Record<string, string>>
  /** Larger blobs are uploaded in parts; 5 MiB to 5 GiB. */
  readonly multipartBytes: number
  /** Blobs uploaded at once. */
  readonly uploads: number
  /** How long one metadata request, and one idle stretch of a transfer, may take. */
  readonly requestTimeoutMs: number
  /** Undefined: every byte goes through this cache. */
  readonly redirect?: RedirectConfig | undefined
}

/** Clients that are answered with a signed URL of the bucket in place of bytes. */
export type RedirectConfig = {
  /** By the address of the connection, at least one. */
  readonly networks: readonly Network[]
  /** Smaller blobs are answered from here. */
  readonly minBytes: number
  /** How long a URL is valid; at most 7 days. */
  readonly ttlMs: number
  /** Origin of the service as clients reach it; undefined: that of {@link S3Config.endpoint}. */
  readonly endpoint: string | undefined
}

/** How to reach Redis. Host names are resolved at each connect, so a service name may move. */
export type RedisConfig = {
  readonly endpoint: RedisEndpoint
  /** The ACL user; undefined: the default user. */
  readonly username: string | undefined
  readonly password: string | undefined
  /** Read at each connect, so that a rotated password is taken up without a restart. Wins over `password`. */
  readonly passwordFile: string | undefined
  /** User and password of the sentinels themselves; they often have none. */
  readonly sentinelUsername: string | undefined
  readonly sentinelPassword: string | undefined
  /** undefined: no TLS, unless the URL says rediss. */
  readonly tls: RedisTlsConfig | undefined
  /** In front of every key, before the version: `layover` gives `layover:1:…`. Replicas that share a cache share it. */
  readonly keyPrefix: string
  /** A command that has no answer by then counts as failed: a miss. */
  readonly commandTimeoutMs: number
}

export type RedisEndpoint =
  | { readonly kind: 'url'; readonly url: string }
  | { readonly kind: 'sentinels'; readonly sentinels: readonly Address[]; readonly name: string }
  | { readonly kind: 'cluster'; readonly nodes: readonly Address[] }

export type RedisTlsConfig = {
  /** PEM text of the authorities to trust in addition to the system's. */
  readonly ca: string | undefined
  /** Name to verify the certificate against; undefined: the host that is dialled. */
  readonly servername: string | undefined
}

/** How the replicas of one cache reach each other, so that a blob comes over the upstream link once for all of them. */
export type ReplicaConfig = {
  /** Where other replicas are answered: an address of its own, off the network of the clients. */
  readonly listen: Address
  /** `http://host:port` under which the others reach this address: the pod's IP, never a load balancer. */
  readonly url: string
  /** File of the secret that all replicas share, at least 16 bytes; read at start. */
  readonly secretFile: string
}

export type TracingConfig = {
  /** URL that takes OTLP traces as JSON: `http://127.0.0.1:4318/v1/traces`. */
  readonly endpoint: string
  /** Of the traces that begin here, from 0 to 1. */
  readonly sampleRatio: number
  /** `service.name` and more, said once with every export. */
  readonly resource: Readonly<Record<string, string>>
  /** Registries are told the trace that a request belongs to. */
  readonly propagateUpstream: boolean
}

export type RightsConfig = {
  /** How long the word of an upstream with credentials on a repository is good; 0: for ever. */
  readonly maxAgeMs: number
}

/** Prices, all in one currency. What has no price counts in bytes and not in money. */
export type PricingConfig = {
  /** ISO 4217: `USD`. */
  readonly currency: string
  /** What a GiB from an upstream costs, by its configured name. */
  readonly links: Readonly<Record<string, LinkPrice>>
  /** What a GiB costs that one replica reads from another. */
  readonly crossZone?: LinkPrice | undefined
  readonly bucket?: BucketPrice | undefined
}

/** A price per GiB by the volume of a calendar month (UTC), as clouds bill it. */
export type LinkPrice = {
  /** The preset, or `custom`: a label of metrics. */
  readonly name: string
  /** So much costs nothing each month; it counts towards the tiers. */
  readonly freeBytes: number
  /** Ascending, the first from 0 on. Each holds for what lies above `fromBytes`, up to where the next begins. */
  readonly tiers: readonly { readonly fromBytes: number; readonly perGiB: number }[]
}

export type BucketPrice = {
  /** PUT, POST, LIST and the parts of uploads. */
  readonly writesPer1000: number
  /** GET, HEAD. */
  readonly readsPer1000: number
  readonly perGiBMonth: number
}
