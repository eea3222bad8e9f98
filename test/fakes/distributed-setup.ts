import { afterAll } from 'vitest'
import { stopServices } from './shared-services.ts'

afterAll(stopServices)
