module github.com/turumba/turumba/cmd/turumba

go 1.26.0

require github.com/turumba/turumba/kit v0.0.0-00010101000000-000000000000

replace github.com/turumba/turumba/gen => ../../gen

replace github.com/turumba/turumba/kit => ../../kit

replace github.com/turumba/turumba/services/account => ../../services/account

replace github.com/turumba/turumba/services/messaging => ../../services/messaging

replace github.com/turumba/turumba/worker => ../../worker

replace github.com/turumba/turumba/gateway => ../../gateway

replace github.com/turumba/turumba/sim => ../../sim
