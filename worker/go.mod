module github.com/turumba/turumba/worker

go 1.26.0

replace github.com/turumba/turumba/gen => ../gen

replace github.com/turumba/turumba/kit => ../kit

replace github.com/turumba/turumba/services/messaging => ../services/messaging

replace github.com/turumba/turumba/sim => ../sim
