import * as z from 'zod'
import {
  address,
  addresses,
  count,
  duration,
  flag,
  keyPrefix,
  networks,
  oneOf,
  originUrl,
  redisUrl,
  secret,
  size,
  tags,
  text,
  url,
} from './values.ts'

const mebibyte = 1024 * 1024

/** The sections that are there only when somebody writes them: without them one machine does it all. */
export const distributedSchemas = {
  s3: z
    .strictObject({
      bucket: text('The bucket that replicas share. Credentials come from the default chain of AWS.').optional(),
      prefix: text('In front of every key in the bucket.').optional(),
      endpoint: url('Origin of a service that is not AWS, such as http://127.0.0.1:9000.').optional(),
      region: text('Region of the bucket.').prefault('us-east-1'),
      pathStyle: flag(
        'The bucket is the first part of the path, not of the host name: most services but AWS.',
      ).prefault(false),
      sse: oneOf(
        ['AES256'],
        "Encryption by the service's own key. Default: what the bucket does by itself.",
      ).optional(),
      kmsKeyId: text('Encryption by this key of KMS.').optional(),
      storageClass: text("Storage class of what is uploaded. Default: the service's.").optional(),
      tags: tags('Tags of what is uploaded, each as key=value.').prefault([]),
      multipartAbove: size('Larger blobs are uploaded in parts.', {
        min: 5 * mebibyte,
        max: 5 * 1024 * mebibyte,
      }).prefault('1GiB'),
      uploads: count('Blobs uploaded at once.', { min: 1, max: 64 }).prefault(4),
      requestTimeout: duration('For one request about an object, and for one stretch without a byte of its bytes.', {
        min: 1,
        timer: true,
      }).prefault('5s'),
      redirect: z
        .strictObject({
          networks: networks('Clients from here are sent to the bucket for what it has. None: nobody is.').prefault([]),
          minBytes: size('Smaller blobs are answered here all the same.', { min: 0 }).prefault('1MiB'),
          ttl: duration('How long such a URL is valid. Each client has at least half of it to begin.', {
            min: 60_000,
            timer: true,
          }).prefault('15m'),
          endpoint: url('Origin of the service as those clients reach it. Default: s3.endpoint.').optional(),
        })
        .prefault({})
        .meta({ description: 'Clients that read from the bucket themselves.' }),
    })
    .optional()
    .meta({ description: 'The bucket of blobs that replicas share.' }),
  redis: z
    .strictObject({
      url: redisUrl('One Redis. Or sentinels, or cluster.').optional(),
      sentinels: addresses('Addresses of the sentinels that know the primary.').optional(),
      sentinelName: text('Name under which the sentinels know the primary.').prefault('mymaster'),
      cluster: addresses('Addresses of some nodes of a Redis Cluster.').optional(),
      username: text('ACL user.').optional(),
      password: secret('Password. Prefer passwordFile.').optional(),
      passwordFile: text('File that holds the password; read again at each connect.').optional(),
      sentinelUsername: text('ACL user at the sentinels.').optional(),
      sentinelPassword: secret('Password at the sentinels.').optional(),
      tls: flag('TLS to every node; also by a URL with rediss://.').prefault(false),
      ca: text('PEM file of authorities to trust in addition to the system.').optional(),
      servername: text('Name to verify the certificate against. Default: the host that is dialled.').optional(),
      keyPrefix: keyPrefix('In front of every key. Replicas of one cache have the same.').prefault('layover'),
      commandTimeout: duration('A command without an answer by then counts as a miss.', {
        min: 1,
        timer: true,
      }).prefault('250ms'),
    })
    .optional()
    .meta({ description: 'Manifests, tags, rights and leases in a Redis that replicas share.' }),
  hotTier: z
    .strictObject({
      maxBytes: size(
        'How much is kept on this disk beside the bucket, in place of storage.maxBytes. 0: nothing that is in the bucket.',
        { min: 0 },
      ).optional(),
    })
    .optional()
    .meta({ description: 'What lies on this disk when the bucket has everything.' }),
  replica: z
    .strictObject({
      listen: address('Where the other replicas are answered. Keep it off the network of the clients.').prefault(
        '0.0.0.0:5002',
      ),
      url: originUrl("Under which the other replicas reach it: this pod's own address, no load balancer.").optional(),
      secretFile: text('File of the secret that all replicas share, at least 16 bytes.').optional(),
    })
    .optional()
    .meta({ description: 'How the replicas of one cache read from each other.' }),
} as const

export const distributedSections = [...Object.keys(distributedSchemas), 'pricing']
