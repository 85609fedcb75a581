// Package golden runs the golden cases: one YAML file per RPC, each case over
// gRPC and over REST against the whole mesh, with the code, reason, fields and
// answer that both wires must give.
package golden
