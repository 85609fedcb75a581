package pg

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// RegisterTypes lets a session take ids as the strings that the product uses.
// Without it each array of ids first fails to encode and is then sent as text,
// which cost a tenth of a group send. Open does it for every session of a DB.
func RegisterTypes(_ context.Context, conn *pgx.Conn) error {
	id := &pgtype.Type{Name: "uuid", OID: pgtype.UUIDOID, Codec: uuidCodec{}}
	conn.TypeMap().RegisterType(id)
	conn.TypeMap().RegisterType(&pgtype.Type{Name: "_uuid", OID: pgtype.UUIDArrayOID, Codec: &pgtype.ArrayCodec{ElementType: id}})
	return nil
}

// uuidCodec is pgx's own for uuid, and takes strings.
type uuidCodec struct{ pgtype.UUIDCodec }

// PlanEncode implements pgtype.Codec.
func (c uuidCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(string); ok && format == pgtype.BinaryFormatCode {
		return encodeUUIDString{}
	}
	return c.UUIDCodec.PlanEncode(m, oid, format, value)
}

type encodeUUIDString struct{}

// Encode implements pgtype.EncodePlan.
func (encodeUUIDString) Encode(value any, buf []byte) ([]byte, error) {
	id, err := uuid.Parse(value.(string))
	if err != nil {
		return nil, fmt.Errorf("encode %q as uuid: %w", value, err)
	}
	return append(buf, id[:]...), nil
}
